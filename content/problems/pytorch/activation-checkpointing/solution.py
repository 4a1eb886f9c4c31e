from collections.abc import Callable

import torch


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, *inputs):
        ctx.function = function
        ctx.random = torch.get_rng_state()
        ctx.save_for_backward(*inputs)
        # Inside of forward no graph is recorded, so no activation outlives this line.
        return function(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        # New leaves: the second pass must end at the inputs, not run on into what made them.
        leaves = [saved.detach().requires_grad_(saved.requires_grad) for saved in ctx.saved_tensors]
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(ctx.random)
            output = ctx.function(*leaves)
        # Reaches the parameters that the function uses as well as the leaves.
        torch.autograd.backward(output, gradient)
        return None, *(leaf.grad for leaf in leaves)


def recompute(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """Return function(*inputs); its activations are computed again on the way back."""
    return _Recompute.apply(function, *inputs)
