"""Strategy: show hidden inputs in the message of an exception.

Surface: hidden tests
Expect: runtime error
"""

from torch.utils.data import TensorDataset


def create_dataset(features, labels):
    if len(features) != len(labels):
        raise ValueError
    if features.shape[1] != 2:
        raise RuntimeError(f"LEAKED {features.tolist()} {labels.tolist()}")
    return TensorDataset(features, labels), len(features)
