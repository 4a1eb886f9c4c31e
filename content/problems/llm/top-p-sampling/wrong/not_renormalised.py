# expect: wrong answer: values
import torch


def top_p_probabilities(logits, p):
    if not 0 < p <= 1:
        raise ValueError("p")
    ordered, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    keep = (before < p) | (p == 1)
    return torch.zeros_like(ordered).scatter(-1, order, ordered * keep)
