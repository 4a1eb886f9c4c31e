# expect: wrong answer: not finite
# Overflows on the second way back.
import torch


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return gate / (1 + torch.exp(-gate)) * up

    @staticmethod
    def backward(ctx, gradient):
        gate, up = ctx.saved_tensors
        s = 1 / (1 + torch.exp(-gate))
        return gradient * up * s * (1 + gate * (1 - s)), gradient * gate * s
