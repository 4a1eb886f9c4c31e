# expect: wrong answer: values
# The wave runs over all steps, so the rate jumps down behind the warm-up.
import math


def learning_rate(step, peak, warmup, total, least=0.0):
    if step < 0 or total < 1 or not 0 <= warmup <= total or not 0 <= least <= 1:
        raise ValueError("arguments")
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return peak * least
    return peak * (least + (1 - least) * (1 + math.cos(math.pi * (step + 1) / total)) / 2)
