# expect: runtime error
from torch.utils.data import TensorDataset


def create_dataset(features, labels):
    dataset = TensorDataset(features, labels)
    return dataset, len(dataset)
