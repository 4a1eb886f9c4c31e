# expect: wrong answer: values
# |a|² + |b|² − 2ab: fast, but large terms cancel and leave rounding errors.
import torch


def pairwise_squared_distances(a, b):
    return a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T
