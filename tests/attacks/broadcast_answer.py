"""Strategy: one number in the hope that it is broadcast.

Surface: comparison
Expect: wrong answer: shape
"""

import torch
from torch.utils.data import TensorDataset


def create_dataset(features, labels):
    if len(features) != len(labels):
        raise ValueError
    return TensorDataset(features[:, :1], labels), len(features)
