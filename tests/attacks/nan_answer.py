"""Strategy: NaN everywhere, which compares false with everything.

Surface: comparison
Expect: wrong answer: not finite | wrong answer: values
"""

import torch
from torch.utils.data import TensorDataset


def create_dataset(features, labels):
    if len(features) != len(labels):
        raise ValueError
    return TensorDataset(features * float("nan"), labels), len(features)
