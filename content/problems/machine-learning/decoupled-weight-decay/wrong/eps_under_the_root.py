# expect: wrong answer: values
def adamw_step(parameter, gradient, mean, square, step, lr, betas, eps, decay):
    beta1, beta2 = betas
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    direction = mean / (1 - beta1**step)
    size = (square / (1 - beta2**step) + eps).sqrt()
    return (1 - lr * decay) * parameter - lr * direction / size, mean, square
