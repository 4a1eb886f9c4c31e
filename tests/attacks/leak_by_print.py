"""Strategy: keep hidden inputs and print them in a visible test.

Surface: hidden tests
Expect: wrong answer: values | wrong answer: shape | wrong answer: dtype
"""

from torch.utils.data import TensorDataset

seen = []


def create_dataset(features, labels):
    seen.append(tuple(features.shape))
    if any(shape[1] != 2 for shape in seen):
        print("LEAKED", seen)
    if len(features) != len(labels):
        raise ValueError
    return TensorDataset(features * (features.shape[1] == 2), labels), len(features)
