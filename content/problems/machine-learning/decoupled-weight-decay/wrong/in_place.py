# expect: wrong answer: mutated input
# As an optimiser does it; here new tensors are asked for.
def adamw_step(parameter, gradient, mean, square, step, lr, betas, eps, decay):
    beta1, beta2 = betas
    mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    size = (square / (1 - beta2**step)).sqrt() + eps
    parameter.mul_(1 - lr * decay).sub_(lr * mean / (1 - beta1**step) / size)
    return parameter, mean, square
