import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


def drive(submission, x, a, b, bits):
    with Largest() as largest:
        found = submission.quantized_factors(x, a, b, bits)
    rows, rank, widths = len(x), len(a), a.shape[1] + len(b)
    allowed = 4 * widths * (rank + rows) + 4 * rank**2
    return {"found": found, "no tensor is too large": largest.elements <= allowed}
