# expect: wrong answer: values
# The second call drops other elements than the first.
import torch


class Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, *inputs):
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        leaves = [t.detach().requires_grad_(t.requires_grad) for t in ctx.saved_tensors]
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            output = ctx.function(*leaves)
        torch.autograd.backward(output, gradient)
        return None, *(leaf.grad for leaf in leaves)


def recompute(function, *inputs):
    return Again.apply(function, *inputs)
