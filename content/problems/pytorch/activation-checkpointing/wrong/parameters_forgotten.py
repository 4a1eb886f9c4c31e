# expect: wrong answer: type
# Asks for the gradients of the inputs only.
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
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(ctx.state)
            output = ctx.function(*leaves)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(output, wanted, gradient))
        return None, *(next(found) if leaf.requires_grad else None for leaf in leaves)


def recompute(function, *inputs):
    return Again.apply(function, *inputs)
