# expect: runtime error
import math

import torch


class KVCache:
    def __init__(self, capacity):
        self.capacity = capacity
        self.length = 0
        self.keys = self.values = torch.empty(0)

    def __len__(self):
        return self.length

    def append(self, key, value):
        start = self.length
        self.length += key.shape[2]
        if self.length > self.capacity:
            self.length = self.capacity
            raise ValueError("full")
        if start == 0:
            shape = (*key.shape[:2], self.capacity, key.shape[3])
            self.keys, self.values = key.new_zeros(shape), key.new_zeros(shape)
        self.keys[:, :, start : self.length] = key
        self.values[:, :, start : self.length] = value

    def attend(self, query):
        tokens = query.shape[2]
        if tokens > self.length:
            raise ValueError("too many")
        keys, values = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        scores = query @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
        mask = torch.ones(tokens, self.length, dtype=torch.bool).tril(self.length - tokens)
        return scores.masked_fill(~mask, -math.inf).softmax(-1) @ values
