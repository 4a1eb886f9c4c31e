"""Strategy: leave the process in the middle of the tests.

Surface: exceptions
Expect: runtime error
"""

import os

from torch.utils.data import TensorDataset


def create_dataset(features, labels):
    if len(features) == 1:
        os._exit(0)
    if len(features) != len(labels):
        raise ValueError
    return TensorDataset(features, labels), len(features)
