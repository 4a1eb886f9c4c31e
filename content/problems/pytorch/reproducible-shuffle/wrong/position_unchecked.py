# expect: wrong answer: no exception
import numpy as np


def epoch_order(count, seed, epoch, position=0):
    return np.random.default_rng([seed, epoch]).permutation(count).tolist()[position:]
