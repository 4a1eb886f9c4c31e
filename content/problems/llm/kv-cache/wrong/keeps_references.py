# expect: wrong answer: values
import math

import torch


class KVCache:
    def __init__(self, capacity):
        self.capacity = capacity
        self.keys, self.values = [], []

    def __len__(self):
        return sum(key.shape[2] for key in self.keys)

    def append(self, key, value):
        if len(self) + key.shape[2] > self.capacity:
            raise ValueError("full")
        self.keys.append(key)
        self.values.append(value)

    def attend(self, query):
        tokens, count = query.shape[2], len(self)
        if tokens > count:
            raise ValueError("too many")
        keys, values = torch.cat(self.keys, 2), torch.cat(self.values, 2)
        scores = query @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
        mask = torch.ones(tokens, count, dtype=torch.bool).tril(count - tokens)
        return scores.masked_fill(~mask, -math.inf).softmax(-1) @ values
