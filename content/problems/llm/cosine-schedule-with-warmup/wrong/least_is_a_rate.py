# expect: wrong answer: values
# Takes the least share for a rate.
import math


def learning_rate(step, peak, warmup, total, least=0.0):
    if step < 0 or total < 1 or not 0 <= warmup <= total or not 0 <= least <= 1:
        raise ValueError("arguments")
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return least
    done = (step - warmup + 1) / (total - warmup)
    return least + (peak - least) * (1 + math.cos(math.pi * done)) / 2
