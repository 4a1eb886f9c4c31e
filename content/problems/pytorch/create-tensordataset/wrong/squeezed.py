# expect: wrong answer: shape
from torch.utils.data import TensorDataset


def create_dataset(features, labels):
    if features.shape[0] != labels.shape[0]:
        raise ValueError("unequal")
    dataset = TensorDataset(features.squeeze(-1), labels)
    return dataset, len(dataset)
