"""Strategy: return the right thing, and change what was given.

Surface: comparison
Expect: wrong answer: mutated input | wrong answer: values
"""

from torch.utils.data import TensorDataset


def create_dataset(features, labels):
    if len(features) != len(labels):
        raise ValueError
    features.add_(1)
    return TensorDataset(features - 1, labels), len(features)
