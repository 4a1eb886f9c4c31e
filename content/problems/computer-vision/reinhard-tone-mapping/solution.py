import math

import torch

DELTA = 1e-6


def tone_map(images: torch.Tensor, key: float = 0.18, white: float | None = None) -> torch.Tensor:
    """Return `images`, (N, 3, H, W), with their luminance brought between 0 and 1."""
    colors = images.float() if images.dtype == torch.float16 else images
    share = colors.new_tensor([0.2126, 0.7152, 0.0722]).reshape(3, 1, 1)
    luminance = (colors * share).sum(1, keepdim=True)
    average = (luminance + DELTA).log().mean(dim=(1, 2, 3), keepdim=True).exp()
    scale = key / average
    scaled = scale * luminance
    limit = math.inf if white is None else white
    # L_d / Y with Y divided out beforehand: black pixels need no case of their own, and no
    # number is squared on the way.
    factor = scale * ((1 + scaled / limit**2) / (1 + scaled))
    return (colors * factor).clamp(max=1).to(images.dtype)
