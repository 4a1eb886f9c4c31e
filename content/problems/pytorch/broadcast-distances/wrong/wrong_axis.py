# expect: wrong answer: shape
# Sums over the points of b instead of the coordinates.
import torch


def pairwise_squared_distances(a, b):
    return (a[:, None] - b[None]).square().sum(1)
