# expect: wrong answer: values
# Draws an order of as many samples as are left, and repeats some that were seen.
import numpy as np


def epoch_order(count, seed, epoch, position=0):
    if not 0 <= position <= count:
        raise ValueError("position")
    return np.random.default_rng([seed, epoch]).permutation(count - position).tolist()
