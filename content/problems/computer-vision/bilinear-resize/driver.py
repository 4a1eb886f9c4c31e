import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    """Sees each operation below PyTorch's own functions, whatever name it was called by."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, _, arguments=(), named=None):
        if "upsample" in operation.name() or "grid_sampler" in operation.name():
            raise RuntimeError(f"{operation.name()} is not to be used here")
        self.count += 1
        if self.count > 300:
            raise RuntimeError("more than 300 operations: is there a loop over the pixels?")
        return operation(*arguments, **(named or {}))


def drive(submission, images, height, width, weights):
    # The same memory without the mark, so that the argument itself stays as it is.
    leaf = images.detach().requires_grad_()
    with Watch():
        resized = submission.resize(leaf, height, width)
    gradient = None
    if (
        isinstance(resized, torch.Tensor)
        and resized.requires_grad
        and resized.shape == weights.shape
        and resized.dtype == weights.dtype
    ):
        (gradient,) = torch.autograd.grad((resized * weights).sum(), leaf)
    return {"resized": resized, "gradient": gradient}
