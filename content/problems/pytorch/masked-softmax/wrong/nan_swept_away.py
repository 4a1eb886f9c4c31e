# expect: wrong answer: not finite
# The values are right; the gradient of the softmax is NaN all the same.
import torch


def masked_softmax(scores, mask):
    hidden = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill(~mask, float("-inf"))
    return torch.softmax(scores + hidden, dim=-1).nan_to_num(0.0)
