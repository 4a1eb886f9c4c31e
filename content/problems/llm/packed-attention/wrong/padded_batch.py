# expect: wrong answer: values
# Pads all sequences to the longest one.
import torch
from torch.nn import functional as F


def packed_attention(query, key, value, cu_seqlens, window=None):
    bounds = cu_seqlens.tolist()
    if bounds[0] or bounds != sorted(bounds) or bounds[-1] > len(query):
        raise ValueError("bounds")
    if window is not None and window < 1:
        raise ValueError("window")
    out, positions = torch.zeros_like(query), torch.zeros(len(query), dtype=torch.int64)
    spans = [(a, b) for a, b in zip(bounds, bounds[1:]) if b > a]
    if not spans:
        return out, positions
    wide = torch.promote_types(query.dtype, torch.float32)
    q, k, v = (
        torch.nn.utils.rnn.pad_sequence([t[a:b] for a, b in spans], batch_first=True)
        .transpose(1, 2)
        .to(wide)
        for t in (query, key, value)
    )
    place = torch.arange(q.shape[2])
    behind = place[:, None] - place
    seen = (behind >= 0) & (behind < (window or 10**9))
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    answer = (scores.softmax(-1) @ v).transpose(1, 2)
    for row, (a, b) in enumerate(spans):
        out[a:b] = answer[row, : b - a]
        positions[a:b] = place[: b - a]
    return out, positions
