# expect: wrong answer: values
import torch


def pairwise_squared_distances(a, b):
    return torch.cdist(a, b)
