# expect: runtime error | wrong answer: shape
# Pairs row i with row i only; unequal numbers of points do not even broadcast.
import torch


def pairwise_squared_distances(a, b):
    return ((a - b) ** 2).sum(-1)
