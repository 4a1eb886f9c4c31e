# expect: wrong answer: mutated input
# Clips the caller's tensor.
import torch


class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, low, high):
        ctx.save_for_backward((x >= low) & (x <= high))
        return torch.round(scale * x.clamp_(low, high)) / scale

    @staticmethod
    def backward(ctx, gradient):
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None
