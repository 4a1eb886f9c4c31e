# expect: wrong answer: values
# The sigmoid is cut off from the graph in backward.
import torch


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return gate * torch.sigmoid(gate) * up

    @staticmethod
    def backward(ctx, gradient):
        gate, up = ctx.saved_tensors
        s = torch.sigmoid(gate.detach())
        return gradient * up * s * (1 + gate * (1 - s)), gradient * gate * s
