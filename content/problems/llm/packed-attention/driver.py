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


def drive(submission, query, key, value, cu_seqlens, window):
    with Largest() as largest:
        outputs, positions = submission.packed_attention(query, key, value, cu_seqlens, window)
    longest = max(cu_seqlens.diff().tolist(), default=0)
    allowed = query.shape[1] * longest**2 + query.numel() + len(cu_seqlens)
    return {
        "outputs": outputs,
        "positions": positions,
        "no tensor is too large": largest.elements <= allowed,
    }
