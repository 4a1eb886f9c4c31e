# expect: runtime error
# Multiplies the budget until it is beyond.
import math


def successive_halving(loss, count, smallest, largest, eta):
    if count < 1 or eta < 2 or not 1 <= smallest <= largest:
        raise ValueError("arguments")
    left, budget, before, spent, rounds = list(range(count)), smallest, 0, 0, []
    while True:
        losses = {i: loss(i, budget) for i in left}
        rounds.append((budget, left))
        spent += len(left) * (budget - before)
        ranked = sorted(left, key=lambda i: (math.isnan(losses[i]), losses[i]))
        if budget >= largest:
            best = ranked[0]
            return {"best": best, "loss": losses[best], "rounds": rounds, "spent": spent}
        left = sorted(ranked[: max(1, len(ranked) // eta)])
        before, budget = budget, budget * eta
