# expect: wrong answer: values | runtime error
# Nothing stops the cosine past the end.
import math


def learning_rate(step, peak, warmup, total, least=0.0):
    if step < 0 or total < 1 or not 0 <= warmup <= total or not 0 <= least <= 1:
        raise ValueError("arguments")
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup + 1) / (total - warmup)
    return peak * (least + (1 - least) * (1 + math.cos(math.pi * done)) / 2)
