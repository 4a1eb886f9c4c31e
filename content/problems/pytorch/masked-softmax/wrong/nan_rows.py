# expect: wrong answer: not finite
# A row of minus infinities gives 0 / 0.
import torch


def masked_softmax(scores, mask):
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)
