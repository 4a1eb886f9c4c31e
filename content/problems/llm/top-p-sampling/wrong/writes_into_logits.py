# expect: wrong answer: mutated input
import torch


def top_p_probabilities(logits, p):
    if not 0 < p <= 1:
        raise ValueError("p")
    if p == 1:
        return logits.softmax(-1)
    ordered, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    drop = torch.zeros_like(ordered, dtype=torch.bool).scatter(-1, order, before >= p)
    logits[drop] = -float("inf")
    return logits.softmax(-1)
