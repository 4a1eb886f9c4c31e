# expect: wrong answer: values
import math


def attention(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1)
    if mask is None:
        return scores.softmax(-1) @ value
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    return weights.masked_fill(~mask, 0.0) @ value
