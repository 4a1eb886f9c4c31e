# expect: wrong answer: values
# A rate that holds both corrections, with eps added to the plain root.
import math


def adamw_step(parameter, gradient, mean, square, step, lr, betas, eps, decay):
    beta1, beta2 = betas
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    rate = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    return (1 - lr * decay) * parameter - rate * mean / (square.sqrt() + eps), mean, square
