import torch


def top_p_probabilities(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Return the probabilities of the smallest set of tokens with at least `p`, renormalised."""
    raise NotImplementedError
