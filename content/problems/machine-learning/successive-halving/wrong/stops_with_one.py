# expect: wrong answer: values
# Ends as soon as one candidate is left, which is then half trained.
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
        if budget == largest or len(ranked) // eta <= 1:
            best = ranked[0]
            return {"best": best, "loss": losses[best], "rounds": rounds, "spent": spent}
        left = sorted(ranked[: len(ranked) // eta])
        before, budget = budget, min(budget * eta, largest)
