# expect: wrong answer: no exception
import math

import torch


class KVCache:
    def __init__(self, capacity):
        self.keys = self.values = None

    def __len__(self):
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, key, value):
        old = len(self) > 0
        self.keys = torch.cat([self.keys, key], 2) if old else key.clone()
        self.values = torch.cat([self.values, value], 2) if old else value.clone()

    def attend(self, query):
        tokens, count = query.shape[2], len(self)
        if tokens > count:
            raise ValueError("too many")
        scores = query @ self.keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
        mask = torch.ones(tokens, count, dtype=torch.bool).tril(count - tokens)
        return scores.masked_fill(~mask, -math.inf).softmax(-1) @ self.values
