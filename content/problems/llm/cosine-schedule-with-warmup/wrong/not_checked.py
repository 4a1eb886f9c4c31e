# expect: wrong answer: no exception | runtime error
import math


def learning_rate(step, peak, warmup, total, least=0.0):
    if step < 0:
        raise ValueError("step")
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return peak * least
    done = (step - warmup + 1) / (total - warmup)
    return peak * (least + (1 - least) * (1 + math.cos(math.pi * done)) / 2)
