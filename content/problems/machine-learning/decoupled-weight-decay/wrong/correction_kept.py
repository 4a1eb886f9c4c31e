# expect: wrong answer: values
# The corrected averages are returned, and would be corrected again.
def adamw_step(parameter, gradient, mean, square, step, lr, betas, eps, decay):
    beta1, beta2 = betas
    mean = (beta1 * mean + (1 - beta1) * gradient) / (1 - beta1**step)
    square = (beta2 * square + (1 - beta2) * gradient**2) / (1 - beta2**step)
    return (1 - lr * decay) * parameter - lr * mean / (square.sqrt() + eps), mean, square
