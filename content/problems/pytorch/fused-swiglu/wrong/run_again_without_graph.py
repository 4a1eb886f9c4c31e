# expect: runtime error
# Lets autograd find the first gradient on copies, which have no connection to the inputs.
import torch


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return gate * torch.sigmoid(gate) * up

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            leaves = [saved.detach().requires_grad_() for saved in ctx.saved_tensors]
            y = leaves[0] * torch.sigmoid(leaves[0]) * leaves[1]
            return torch.autograd.grad(y, leaves, gradient)
