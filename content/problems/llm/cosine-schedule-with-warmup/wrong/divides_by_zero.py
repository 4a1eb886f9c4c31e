# expect: runtime error
# Computes both branches before it chooses.
import math


def learning_rate(step, peak, warmup, total, least=0.0):
    if step < 0 or total < 1 or not 0 <= warmup <= total or not 0 <= least <= 1:
        raise ValueError("arguments")
    rise = (step + 1) / warmup
    done = min(1.0, (step - warmup + 1) / (total - warmup))
    fall = least + (1 - least) * (1 + math.cos(math.pi * done)) / 2
    return peak * (rise if step < warmup else fall)
