# expect: wrong answer: values
# Keeps sequences apart, but lets tokens see the future.
import torch
from torch.nn import functional as F


def packed_attention(query, key, value, cu_seqlens, window=None):
    bounds = cu_seqlens.tolist()
    if bounds[0] or bounds != sorted(bounds) or bounds[-1] > len(query):
        raise ValueError("bounds")
    if window is not None and window < 1:
        raise ValueError("window")
    out, positions = torch.zeros_like(query), torch.zeros(len(query), dtype=torch.int64)
    wide = torch.promote_types(query.dtype, torch.float32)
    for first, stop in zip(bounds, bounds[1:]):
        place = torch.arange(stop - first)
        seen = place[:, None] - place < (window or 10**9)
        q, k, v = (t[None, first:stop].transpose(1, 2).to(wide) for t in (query, key, value))
        answer = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        out[first:stop] = answer[0].transpose(0, 1)
        positions[first:stop] = place
    return out, positions
