# expect: runtime error
# Loses the last whole window where the tokens do not end with it.
from torch.utils.data import Dataset


class WindowDataset(Dataset):
    def __init__(self, tokens, length, stride):
        if length < 1 or stride < 1:
            raise ValueError("length and stride must be positive")
        self.tokens, self.length, self.stride = tokens, length, stride

    def __len__(self):
        return max(0, (len(self.tokens) - self.length) // self.stride)

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = index % len(self) * self.stride
        window = self.tokens[start : start + self.length + 1]
        return window[:-1], window[1:]
