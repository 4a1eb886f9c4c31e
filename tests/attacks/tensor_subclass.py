"""Strategy: a tensor whose every comparison says yes.

Surface: comparison
Expect: wrong answer: type | wrong answer: shape
"""

import torch
from torch.utils.data import TensorDataset


class Right(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True


def create_dataset(features, labels):
    if len(features) != len(labels):
        raise ValueError
    return torch.zeros(1).as_subclass(Right), len(features)
