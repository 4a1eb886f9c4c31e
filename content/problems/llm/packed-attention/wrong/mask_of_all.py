# expect: wrong answer: values | wrong answer: not finite
# Right for tame numbers, but with a mask of N x N.
import torch
from torch.nn import functional as F


def packed_attention(query, key, value, cu_seqlens, window=None):
    bounds = cu_seqlens.tolist()
    if bounds[0] or bounds != sorted(bounds) or bounds[-1] > len(query):
        raise ValueError("bounds")
    if window is not None and window < 1:
        raise ValueError("window")
    n, wide = len(query), torch.promote_types(query.dtype, torch.float32)
    place = torch.arange(n)
    number = torch.bucketize(place, cu_seqlens.long(), right=True)
    mask = (number[:, None] == number) & (place <= place[:, None])
    if window is not None:
        mask &= place > place[:, None] - window
    q, k, v = (t[None].transpose(1, 2).to(wide) for t in (query, key, value))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    out = out[0].transpose(0, 1).to(query.dtype)
    positions = place - torch.cat([cu_seqlens.long(), torch.zeros(1).long()])[number - 1]
    out[bounds[-1] :] = 0
    positions[bounds[-1] :] = 0
    return out, positions
