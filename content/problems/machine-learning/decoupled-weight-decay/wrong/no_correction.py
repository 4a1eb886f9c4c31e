# expect: wrong answer: values
# The averages are used as they are.
def adamw_step(parameter, gradient, mean, square, step, lr, betas, eps, decay):
    beta1, beta2 = betas
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    return (1 - lr * decay) * parameter - lr * mean / (square.sqrt() + eps), mean, square
