import torch
from torch.utils.data import Dataset


class WindowDataset(Dataset):
    """Windows of `length` tokens, each with the same window moved on by one token."""

    def __init__(self, tokens: torch.Tensor, length: int, stride: int) -> None:
        if length < 1 or stride < 1:
            raise ValueError(f"length {length} and stride {stride} must both be 1 or more")
        self.tokens, self.length, self.stride = tokens, length, stride

    def __len__(self) -> int:
        # The first window needs length + 1 tokens, each further one `stride` more.
        spare = len(self.tokens) - (self.length + 1)
        return spare // self.stride + 1 if spare >= 0 else 0

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"window {index} of {count}")
        start = (index % count) * self.stride
        window = self.tokens[start : start + self.length + 1]
        return window[:-1], window[1:]
