# expect: wrong answer: values
# A row that sees nothing gets equal weights.
import torch


def masked_softmax(scores, mask):
    return torch.softmax(scores.masked_fill(~mask, -1e9), dim=-1)
