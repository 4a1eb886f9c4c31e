# expect: wrong answer: values
# Adam with an L2 penalty: the decay is divided by the size of the gradient.
def adamw_step(parameter, gradient, mean, square, step, lr, betas, eps, decay):
    beta1, beta2 = betas
    gradient = gradient + decay * parameter
    mean = beta1 * mean + (1 - beta1) * gradient
    square = beta2 * square + (1 - beta2) * gradient**2
    direction = mean / (1 - beta1**step)
    size = (square / (1 - beta2**step)).sqrt()
    return parameter - lr * direction / (size + eps), mean, square
