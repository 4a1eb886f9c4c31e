import torch


def crop_and_flip(
    image: torch.Tensor,
    boxes: torch.Tensor,
    top: int,
    left: int,
    height: int,
    width: int,
    flip: bool,
    share: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the crop, the boxes that are left in it, and their indices."""
    raise NotImplementedError
