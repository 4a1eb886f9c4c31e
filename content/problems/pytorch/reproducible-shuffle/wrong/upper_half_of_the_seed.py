# expect: wrong answer: values
# PyTorch's CPU generator uses the lower 32 bits of a seed only, so the run's seed is lost.
import torch


def epoch_order(count, seed, epoch, position=0):
    if not 0 <= position <= count:
        raise ValueError("position")
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return torch.randperm(count, generator=generator).tolist()[position:]
