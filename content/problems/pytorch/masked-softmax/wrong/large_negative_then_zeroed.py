# expect: wrong answer: values
# Right until seen scores are as low as the number that hides the others.
import torch


def masked_softmax(scores, mask):
    filled = scores.masked_fill(~mask, -1e9)
    return torch.softmax(filled, dim=-1).masked_fill(~mask, 0.0)
