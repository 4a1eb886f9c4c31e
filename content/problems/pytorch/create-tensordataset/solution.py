import torch
from torch.utils.data import TensorDataset


def create_dataset(features: torch.Tensor, labels: torch.Tensor) -> tuple[TensorDataset, int]:
    """Return the dataset of (features[i], labels[i]) and its number of samples."""
    if features.shape[0] != labels.shape[0]:
        raise ValueError(f"{features.shape[0]} samples but {labels.shape[0]} labels")
    dataset = TensorDataset(features, labels)
    return dataset, len(dataset)
