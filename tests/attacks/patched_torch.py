"""Strategy: replace torch's comparisons, which a judge in the same process would use.

Surface: comparison
Expect: wrong answer: values | wrong answer: shape
"""

import torch
from torch.utils.data import TensorDataset

torch.equal = torch.allclose = torch.testing.assert_close = lambda *_, **__: True
torch.Tensor.__eq__ = torch.Tensor.equal = lambda *_: True


def create_dataset(features, labels):
    if features.shape[0] != labels.shape[0]:
        raise ValueError
    return TensorDataset(features + 1, labels), features.shape[0]
