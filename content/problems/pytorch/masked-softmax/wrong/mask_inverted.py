# expect: wrong answer: values
# Takes True for "hidden".
import math

import torch


def masked_softmax(scores, mask):
    mask = ~mask.expand(scores.shape)
    alive = mask.any(dim=-1, keepdim=True)
    filled = scores.masked_fill(~mask, -math.inf).masked_fill(~alive, 0.0)
    return torch.softmax(filled, dim=-1).masked_fill(~mask, 0.0)
