import torch
from torch.utils.data import Dataset


class WindowDataset(Dataset):
    """Windows of `length` tokens, each with the same window moved on by one token."""

    def __init__(self, tokens: torch.Tensor, length: int, stride: int) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError
