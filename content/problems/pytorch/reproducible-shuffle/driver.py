import random
from itertools import permutations

import numpy as np
import torch


def states():
    kind, keys, place, *rest = np.random.get_state()
    return [
        torch.get_rng_state().tolist(), [kind, keys.tolist(), place, *rest], random.getstate(),
    ]  # fmt: skip


def drive(submission, count, seed, epoch, position, frequent):
    order = submission.epoch_order
    before = states()
    part = order(count, seed, epoch, position)
    untouched = states() == before
    torch.manual_seed(epoch + 12)
    np.random.seed(epoch + 13)
    random.seed(epoch + 14)
    others = []
    if count >= 20:
        others = [order(count, seed + i, epoch + j) for i in range(4) for j in range(4)]
        # Pairs that a sum such as 1000 · seed + epoch takes for the same one.
        for width in (10, 100, 1000, 10_000, 100_000):
            others.append(order(count, seed, epoch + 5 * width))
            others.append(order(count, seed + 5, epoch + width))
            others.append(order(count, seed + 6, epoch))
        others = [list(other) for other in others]
    counts = []
    if frequent:
        seen = [tuple(order(3, seed, number)) for number in range(600)]
        counts = [seen.count(which) for which in permutations(range(3))]
    return {
        "order": part,
        "whole": order(count, seed, epoch),
        "again": order(count, seed, epoch, position),
        "global states untouched": untouched,
        "different orders": len({tuple(other) for other in others}),
        "how often": counts,
    }
