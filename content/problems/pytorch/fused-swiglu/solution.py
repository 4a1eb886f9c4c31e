import torch


class SwiGLU(torch.autograd.Function):
    """silu(gate) · up, keeping only the two inputs for the way back."""

    @staticmethod
    def forward(ctx, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        # Inputs keep their place in the graph when they are saved. A sigmoid computed here has
        # none, and a second backward would take it for a constant.
        ctx.save_for_backward(gate, up)
        return gate * torch.sigmoid(gate) * up

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        gate, up = ctx.saved_tensors
        # Plain operations on tensors of the graph: autograd records them if it is asked to.
        sigmoid = torch.sigmoid(gate)
        for_gate = gradient * up * sigmoid * (1 + gate * (1 - sigmoid))
        for_up = gradient * gate * sigmoid
        return for_gate, for_up
