from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    """Sees each operation below PyTorch's own functions, whatever name it was called by."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, _, arguments=(), named=None):
        name = operation.name()
        if "conv" in name or "im2col" in name or "unfold_copy" in name:
            raise RuntimeError(f"{name} is not to be used here")
        self.count += 1
        if self.count > 1000:
            raise RuntimeError("more than 1000 operations: is there a loop over the image?")
        return operation(*arguments, **(named or {}))


def drive(submission, *arguments):
    with Watch():
        return submission.unfold_convolution(*arguments)
