# expect: wrong answer: values
# Counts windows whose inputs fit, and forgets that the targets need one token more.
from torch.utils.data import Dataset


class WindowDataset(Dataset):
    def __init__(self, tokens, length, stride):
        if length < 1 or stride < 1:
            raise ValueError("length and stride must be positive")
        self.tokens, self.length, self.stride = tokens, length, stride

    def __len__(self):
        return max(0, (len(self.tokens) - self.length) // self.stride + 1)

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = index % len(self) * self.stride
        return (
            self.tokens[start : start + self.length],
            self.tokens[start + 1 : start + self.length + 1],
        )
