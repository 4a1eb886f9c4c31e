import torch


def tone_map(images: torch.Tensor, key: float = 0.18, white: float | None = None) -> torch.Tensor:
    """Return `images`, (N, 3, H, W), with their luminance brought between 0 and 1."""
    raise NotImplementedError
