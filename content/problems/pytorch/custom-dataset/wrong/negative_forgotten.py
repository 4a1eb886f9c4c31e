# expect: runtime error
# Right but for negative indices.
from torch.utils.data import Dataset


class WindowDataset(Dataset):
    def __init__(self, tokens, length, stride):
        if length < 1 or stride < 1:
            raise ValueError("length and stride must be positive")
        self.tokens, self.length, self.stride = tokens, length, stride

    def __len__(self):
        return max(0, (len(self.tokens) - self.length - 1) // self.stride + 1)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.stride
        window = self.tokens[start : start + self.length + 1]
        return window[:-1], window[1:]
