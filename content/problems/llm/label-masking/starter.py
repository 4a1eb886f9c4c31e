import torch


def assistant_labels(
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    start: int,
    assistant: int,
    end: int,
    last_only: bool = False,
) -> torch.Tensor:
    """Return the shifted labels of a padded batch of chats: (B, L), -100 where not trained."""
    raise NotImplementedError
