# expect: wrong answer: values
import torch
from torch.nn import functional as F


def packed_attention(query, key, value, cu_seqlens, window=None):
    bounds = cu_seqlens.tolist()
    if bounds[0] or bounds != sorted(bounds) or bounds[-1] > len(query):
        raise ValueError("bounds")
    if window is not None and window < 1:
        raise ValueError("window")
    out = torch.zeros_like(query)
    wide = torch.promote_types(query.dtype, torch.float32)
    for first, stop in zip(bounds, bounds[1:]):
        place = torch.arange(stop - first)
        behind = place[:, None] - place
        seen = (behind >= 0) & (behind < (window or 10**9))
        q, k, v = (t[None, first:stop].transpose(1, 2).to(wide) for t in (query, key, value))
        answer = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        out[first:stop] = answer[0].transpose(0, 1)
    return out, torch.arange(len(query))
