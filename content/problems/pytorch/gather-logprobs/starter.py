import torch


def token_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the log-probability that `logits` give to each of `tokens`."""
    raise NotImplementedError
