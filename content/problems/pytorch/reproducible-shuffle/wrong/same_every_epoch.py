# expect: wrong answer: values
# All epochs have the same order.
import numpy as np


def epoch_order(count, seed, epoch, position=0):
    if not 0 <= position <= count:
        raise ValueError("position")
    return np.random.default_rng(seed).permutation(count).tolist()[position:]
