# expect: wrong answer: values
# The sigmoid is kept as an attribute, where nobody counts it, and is a constant all the same.
import torch


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.sigmoid = torch.sigmoid(gate)
        ctx.save_for_backward(gate, up)
        return gate * ctx.sigmoid * up

    @staticmethod
    def backward(ctx, gradient):
        gate, up = ctx.saved_tensors
        s = ctx.sigmoid
        return gradient * up * s * (1 + gate * (1 - s)), gradient * gate * s
