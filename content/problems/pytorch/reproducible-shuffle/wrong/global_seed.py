# expect: wrong answer: values
# Sets the seed of everybody's random numbers.
import torch


def epoch_order(count, seed, epoch, position=0):
    if not 0 <= position <= count:
        raise ValueError("position")
    torch.manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count).tolist()[position:]
