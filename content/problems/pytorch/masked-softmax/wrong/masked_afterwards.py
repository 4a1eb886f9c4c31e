# expect: wrong answer: values
# Hidden places keep their share of the sum, and the rows do not add up to 1.
import torch


def masked_softmax(scores, mask):
    return torch.softmax(scores, dim=-1).masked_fill(~mask, 0.0)
