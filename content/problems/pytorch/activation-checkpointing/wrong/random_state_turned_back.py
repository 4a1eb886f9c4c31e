# expect: wrong answer: values
# Sets the old random state and leaves it set: the same numbers are drawn once more.
import torch


class Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, *inputs):
        ctx.function = function
        ctx.state = torch.get_rng_state()
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        leaves = [t.detach().requires_grad_(t.requires_grad) for t in ctx.saved_tensors]
        torch.set_rng_state(ctx.state)
        with torch.enable_grad():
            output = ctx.function(*leaves)
        torch.autograd.backward(output, gradient)
        return None, *(leaf.grad for leaf in leaves)


def recompute(function, *inputs):
    return Again.apply(function, *inputs)
