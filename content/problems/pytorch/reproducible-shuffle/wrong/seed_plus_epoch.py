# expect: wrong answer: values
# Epoch 1 of seed 7 is epoch 0 of seed 8.
import torch


def epoch_order(count, seed, epoch, position=0):
    if not 0 <= position <= count:
        raise ValueError("position")
    generator = torch.Generator().manual_seed(seed + epoch)
    return torch.randperm(count, generator=generator).tolist()[position:]
