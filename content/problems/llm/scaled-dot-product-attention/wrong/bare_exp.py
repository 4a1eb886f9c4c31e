# expect: wrong answer: not finite
import math


def attention(query, key, value, mask=None):
    scores = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).exp()
    if mask is not None:
        scores = scores * mask
    total = scores.sum(-1, keepdim=True)
    return (scores / total.where(total > 0, 1.0)) @ value
