# expect: wrong answer: values
# Takes the packed row for one text.
import torch
from torch.nn import functional as F


def packed_attention(query, key, value, cu_seqlens, window=None):
    bounds = cu_seqlens.tolist()
    if bounds[0] or bounds != sorted(bounds) or bounds[-1] > len(query):
        raise ValueError("bounds")
    if window is not None and window < 1:
        raise ValueError("window")
    positions = torch.zeros(len(query), dtype=torch.int64)
    for first, stop in zip(bounds, bounds[1:]):
        positions[first:stop] = torch.arange(stop - first)
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v = (t[None].transpose(1, 2).to(wide) for t in (query, key, value))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    out = out[0].transpose(0, 1).to(query.dtype)
    out[bounds[-1] :] = 0
    return out, positions
