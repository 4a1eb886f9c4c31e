# expect: wrong answer: not finite
# 0 · NaN is NaN, so rubbish at hidden places spreads over the row.
import torch


def masked_softmax(scores, mask):
    mask = mask.expand(scores.shape)
    seen = scores * mask + (~mask) * -torch.finfo(scores.dtype).max
    weights = torch.softmax(seen, dim=-1)
    return weights.masked_fill(~mask, 0.0)
