# expect: wrong answer: shape
import torch


def pairwise_squared_distances(a, b):
    return (a[None] - b[:, None]).square().sum(-1)
