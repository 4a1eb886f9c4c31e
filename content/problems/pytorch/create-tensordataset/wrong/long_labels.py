# expect: wrong answer: dtype
from torch.utils.data import TensorDataset


def create_dataset(features, labels):
    if features.shape[0] != labels.shape[0]:
        raise ValueError("unequal")
    dataset = TensorDataset(features, labels.long())
    return dataset, len(dataset)
