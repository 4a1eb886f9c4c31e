# expect: wrong answer: values
# Differentiates the sigmoid, and forgets the gate before it.
import torch


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return gate * torch.sigmoid(gate) * up

    @staticmethod
    def backward(ctx, gradient):
        gate, up = ctx.saved_tensors
        s = torch.sigmoid(gate)
        return gradient * up * gate * s * (1 - s), gradient * gate * s
