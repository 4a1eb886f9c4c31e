"""Strategy: a number that changes its mind.

Surface: comparison
Expect: wrong answer: type
"""

from torch.utils.data import TensorDataset


class Number(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


def create_dataset(features, labels):
    if len(features) != len(labels):
        raise ValueError
    return TensorDataset(features, labels), Number(0)
