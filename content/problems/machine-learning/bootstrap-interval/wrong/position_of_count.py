# expect: wrong answer: values
# The position is q · R.
import math


def bootstrap_interval(values, indices, statistic, level):
    if not 0 < level < 1:
        raise ValueError("level")
    found = [statistic(values[row]) for row in indices]
    if not all(map(math.isfinite, found)):
        raise ValueError("not finite")
    found.sort()

    def quantile(q):
        position = min(q * len(found), len(found) - 1)
        k = int(position)
        after = found[min(k + 1, len(found) - 1)]
        return found[k] + (position - k) * (after - found[k])

    return quantile((1 - level) / 2), quantile((1 + level) / 2)
