# expect: wrong answer: type
import numpy as np
import torch


def epoch_order(count, seed, epoch, position=0):
    if not 0 <= position <= count:
        raise ValueError("position")
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))[position:]
