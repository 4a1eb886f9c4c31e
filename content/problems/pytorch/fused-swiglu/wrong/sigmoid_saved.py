# expect: wrong answer: values
# The first gradient is right. The second takes the sigmoid for a constant.
import torch


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        sigmoid = torch.sigmoid(gate)
        ctx.save_for_backward(gate, up, sigmoid)
        return gate * sigmoid * up

    @staticmethod
    def backward(ctx, gradient):
        gate, up, sigmoid = ctx.saved_tensors
        return gradient * up * sigmoid * (1 + gate * (1 - sigmoid)), gradient * gate * sigmoid
