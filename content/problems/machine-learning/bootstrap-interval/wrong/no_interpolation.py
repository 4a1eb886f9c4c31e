# expect: wrong answer: values
# Takes the statistic at the rounded position.
import math


def bootstrap_interval(values, indices, statistic, level):
    if not 0 < level < 1:
        raise ValueError("level")
    found = [statistic(values[row]) for row in indices]
    if not all(map(math.isfinite, found)):
        raise ValueError("not finite")
    found.sort()
    last = len(found) - 1
    return found[round((1 - level) / 2 * last)], found[round((1 + level) / 2 * last)]
