# expect: wrong answer: values
import math

import torch


class KVCache:
    def __init__(self, capacity):
        self.capacity = capacity
        self.length = 0

    def __len__(self):
        return self.length

    def append(self, key, value):
        end = self.length + key.shape[2]
        if end > self.capacity:
            raise ValueError("full")
        if self.length == 0:
            shape = (*key.shape[:2], self.capacity, key.shape[3])
            self.keys, self.values = key.new_zeros(shape), key.new_zeros(shape)
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end

    def attend(self, query):
        tokens = query.shape[2]
        if tokens > self.length:
            raise ValueError("too many")
        scores = query @ self.keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
        mask = torch.ones(tokens, self.capacity, dtype=torch.bool).tril(self.capacity - tokens)
        return scores.masked_fill(~mask, -math.inf).softmax(-1) @ self.values
