# expect: wrong answer: values
# Moves first and shrinks then: the step is shrunk, too.
def adamw_step(parameter, gradient, mean, square, step, lr, betas, eps, decay):
    beta1, beta2 = betas
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    direction = mean / (1 - beta1**step)
    size = (square / (1 - beta2**step)).sqrt()
    return (1 - lr * decay) * (parameter - lr * direction / (size + eps)), mean, square
