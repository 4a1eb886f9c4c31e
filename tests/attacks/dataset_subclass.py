"""Strategy: a subclass of the class that is asked for, with its own length and items.

Surface: comparison
Expect: wrong answer: type
"""

from torch.utils.data import TensorDataset


class Mine(TensorDataset):
    def __init__(self):
        self.tensors = ()

    def __len__(self):
        return 3


def create_dataset(features, labels):
    return Mine(), 3
