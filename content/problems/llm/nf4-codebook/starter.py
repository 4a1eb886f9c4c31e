import torch


def normal_float(bits: int = 4, offset: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the levels of NormalFloat in ascending order, and how often each is used."""
    raise NotImplementedError
