from itertools import pairwise

import torch
from torch.nn import functional as F


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    window: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return causal attention inside each sequence, (N, H, D), and each token's position."""
    bounds = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds != sorted(bounds) or bounds[-1] > len(query):
        raise ValueError(f"cu_seqlens must rise from 0 to at most {len(query)}")
    if window is not None and window < 1:
        raise ValueError(f"a window of {window} tokens leaves nothing to look at")
    wide = torch.promote_types(query.dtype, torch.float32)
    outputs = torch.zeros_like(query)
    positions = torch.zeros(len(query), dtype=torch.int64)
    for first, stop in pairwise(bounds):
        place = torch.arange(stop - first)
        positions[first:stop] = place
        behind = place[:, None] - place
        seen = behind >= 0
        if window is not None:
            seen &= behind < window
        # Other sequences are not masked: they are not there.
        q, k, v = (t[None, first:stop].transpose(1, 2).to(wide) for t in (query, key, value))
        answer = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        outputs[first:stop] = answer[0].transpose(0, 1)
    return outputs, positions
