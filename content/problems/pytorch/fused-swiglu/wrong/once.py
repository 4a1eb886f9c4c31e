# expect: runtime error
# An honest refusal, but a second derivative is asked for.
import torch
from torch.autograd.function import once_differentiable


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return gate * torch.sigmoid(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gate, up = ctx.saved_tensors
        s = torch.sigmoid(gate)
        return gradient * up * s * (1 + gate * (1 - s)), gradient * gate * s
