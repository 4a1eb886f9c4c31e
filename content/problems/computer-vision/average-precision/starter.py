import torch


def average_precision(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    images: torch.Tensor,
    truth: torch.Tensor,
    truth_images: torch.Tensor,
    threshold: float,
) -> float:
    """Return the area under the monotone precision over the recall."""
    raise NotImplementedError
