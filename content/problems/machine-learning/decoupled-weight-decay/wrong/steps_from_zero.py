# expect: wrong answer: values | wrong answer: not finite
# Counts steps from 0: at the first step this divides by 0.
def adamw_step(parameter, gradient, mean, square, step, lr, betas, eps, decay):
    beta1, beta2 = betas
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    first, second = 1 - beta1 ** (step - 1), 1 - beta2 ** (step - 1)
    size = (square / second).sqrt()
    return (1 - lr * decay) * parameter - lr * mean / first / (size + eps), mean, square
