import torch


def top_p_probabilities(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Return the probabilities of the smallest set of tokens with at least `p`, renormalised."""
    if not 0 < p <= 1:
        raise ValueError(f"p must be above 0 and at most 1, not {p}")
    probabilities = logits.softmax(-1)
    if p == 1:  # a rounded sum may reach 1 before the last token
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    before[..., 1:] = ordered.cumsum(-1)[..., :-1]  # exact, where a difference would round
    kept = torch.zeros_like(ordered).scatter(-1, order, ordered.where(before < p, 0.0))
    return kept / kept.sum(-1, keepdim=True)
