# expect: runtime error
# backward runs without recording gradients, unless it is told to.
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
        torch.autograd.backward(ctx.function(*leaves), gradient)
        return None, *(leaf.grad for leaf in leaves)


def recompute(function, *inputs):
    return Again.apply(function, *inputs)
