import torch


def token_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the log-probability that `logits` give to each of `tokens`."""
    # Gather first: the normaliser is one number a place, so no second (..., V) tensor is made.
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(dim=-1)
