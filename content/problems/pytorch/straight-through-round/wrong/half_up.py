# expect: wrong answer: values
# Rounds halves up, not to the even neighbour.
import torch


class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, low, high):
        ctx.save_for_backward((x >= low) & (x <= high))
        return torch.floor(scale * x.clamp(low, high) + 0.5) / scale

    @staticmethod
    def backward(ctx, gradient):
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None
