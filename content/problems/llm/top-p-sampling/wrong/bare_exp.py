# expect: wrong answer: not finite | wrong answer: values
import torch


def top_p_probabilities(logits, p):
    if not 0 < p <= 1:
        raise ValueError("p")
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    if p == 1:
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    kept = torch.zeros_like(ordered).scatter(-1, order, ordered * (before < p))
    return kept / kept.sum(-1, keepdim=True)
