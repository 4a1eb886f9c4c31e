# expect: wrong answer: no exception | runtime error
import torch
from torch.nn import functional as F


def packed_attention(query, key, value, cu_seqlens, window=None):
    if window is not None and window < 1:
        raise ValueError("window")
    out, positions = torch.zeros_like(query), torch.zeros(len(query), dtype=torch.int64)
    wide = torch.promote_types(query.dtype, torch.float32)
    for length, stop in zip(cu_seqlens.diff().tolist(), cu_seqlens[1:].tolist()):
        first = stop - length
        place = torch.arange(max(0, min(stop, len(query)) - first))
        behind = place[:, None] - place
        seen = (behind >= 0) & (behind < (window or 10**9))
        q, k, v = (t[None, first:stop].transpose(1, 2).to(wide) for t in (query, key, value))
        answer = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        out[first:stop] = answer[0].transpose(0, 1)
        positions[first:stop] = place
    return out, positions
