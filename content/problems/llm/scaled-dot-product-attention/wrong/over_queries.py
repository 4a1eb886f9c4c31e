# expect: wrong answer: values
import math


def attention(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is None:
        return scores.softmax(-2) @ value
    weights = scores.masked_fill(~mask, -1e30).softmax(-2)
    return weights.masked_fill(~mask, 0.0) @ value
