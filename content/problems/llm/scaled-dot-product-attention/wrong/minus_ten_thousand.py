# expect: wrong answer: values
import math


def attention(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is None:
        return scores.softmax(-1) @ value
    weights = (scores + (~mask) * -1e4).softmax(-1) * mask.any(-1, keepdim=True)
    return weights @ value
