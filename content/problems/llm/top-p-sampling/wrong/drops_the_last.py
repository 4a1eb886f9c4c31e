# expect: wrong answer: values
import torch


def top_p_probabilities(logits, p):
    if not 0 < p <= 1:
        raise ValueError("p")
    probabilities = logits.softmax(-1)
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    keep = ordered.cumsum(-1) <= p
    keep[..., 0] = True
    if p == 1:
        keep[:] = True
    kept = torch.zeros_like(ordered).scatter(-1, order, ordered * keep)
    return kept / kept.sum(-1, keepdim=True)
