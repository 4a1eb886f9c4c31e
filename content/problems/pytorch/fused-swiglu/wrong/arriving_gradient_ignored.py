# expect: wrong answer: values
# Right only where the gradient that arrives is 1.
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
        return up * s * (1 + gate * (1 - s)), gate * s
