import math
from collections.abc import Callable


def successive_halving(
    loss: Callable[[int, int], float], count: int, smallest: int, largest: int, eta: int
) -> dict:
    """Return the best candidate, its loss, the rounds and the budget spent."""
    if count < 1 or eta < 2 or not 1 <= smallest <= largest:
        raise ValueError(f"{count} candidates, budgets {smallest} to {largest}, eta {eta}")
    candidates = list(range(count))
    budget, before, spent, rounds = smallest, 0, 0, []
    while True:
        losses = {i: loss(i, budget) for i in candidates}
        rounds.append((budget, candidates))
        spent += len(candidates) * (budget - before)
        # NaN-ness comes first in the key, so that no number is ever compared with a NaN. Sorting is
        # stable: of equal losses, and of several NaN, the smaller index stays in front.
        ranked = sorted(candidates, key=lambda i: (math.isnan(losses[i]), losses[i]))
        if budget == largest:
            best = ranked[0]
            return {"best": best, "loss": losses[best], "rounds": rounds, "spent": spent}
        candidates = sorted(ranked[: max(1, len(ranked) // eta)])
        before, budget = budget, min(budget * eta, largest)
