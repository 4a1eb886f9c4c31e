# expect: wrong answer: values
# Cuts the wave off at the floor instead of fitting it between peak and floor.
import math


def learning_rate(step, peak, warmup, total, least=0.0):
    if step < 0 or total < 1 or not 0 <= warmup <= total or not 0 <= least <= 1:
        raise ValueError("arguments")
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return peak * least
    done = (step - warmup + 1) / (total - warmup)
    return peak * max(least, (1 + math.cos(math.pi * done)) / 2)
