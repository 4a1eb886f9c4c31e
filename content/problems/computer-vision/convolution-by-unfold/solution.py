import torch
from torch.nn import functional as F


def unfold_convolution(
    images: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the windows of `images` as columns, and their convolution with `weight`."""
    (vertical, horizontal), (down, across) = padding, dilation
    # F.pad counts dimensions from the last one.
    padded = F.pad(images, (horizontal, horizontal, vertical, vertical))
    high, wide = down * (weight.shape[2] - 1) + 1, across * (weight.shape[3] - 1) + 1
    if high > padded.shape[2] or wide > padded.shape[3]:
        raise ValueError(f"a window of {high} × {wide} in an image of {tuple(padded.shape[2:])}")
    # (N, C, H', W', K_h, K_w): a view, in which neighbouring windows share their numbers.
    windows = padded.unfold(2, high, stride[0]).unfold(3, wide, stride[1])[..., ::down, ::across]
    rows, places = windows.shape[2:4]
    columns = windows.permute(0, 1, 4, 5, 2, 3).reshape(
        len(images), weight[0].numel(), rows * places
    )
    output = weight.flatten(1) @ columns
    if bias is not None:
        output = output + bias[:, None]
    return columns, output.reshape(len(images), len(weight), rows, places)
