import math


def learning_rate(step: int, peak: float, warmup: int, total: int, least: float = 0.0) -> float:
    """Return the learning rate of optimiser step `step`, counted from 0."""
    if step < 0 or total < 1 or not 0 <= warmup <= total:
        raise ValueError(f"step {step}, {warmup} steps of warm-up, {total} steps")
    if not 0 <= least <= 1:
        raise ValueError(f"the least share must be from 0 to 1, not {least}")
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return peak * least
    done = (step - warmup + 1) / (total - warmup)
    return peak * (least + (1 - least) * (1 + math.cos(math.pi * done)) / 2)
