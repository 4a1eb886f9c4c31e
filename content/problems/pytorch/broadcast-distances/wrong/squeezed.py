# expect: wrong answer: shape
import torch


def pairwise_squared_distances(a, b):
    return (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(-1).squeeze()
