# expect: wrong answer: values
# Different for all epochs, but only `count` of all the permutations ever occur.
import numpy as np


def epoch_order(count, seed, epoch, position=0):
    if not 0 <= position <= count:
        raise ValueError("position")
    order = np.random.default_rng(seed).permutation(count).tolist()
    shift = epoch % max(1, count)
    return (order[shift:] + order[:shift])[position:]
