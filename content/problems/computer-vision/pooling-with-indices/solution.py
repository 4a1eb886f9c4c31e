import torch


def max_pool(
    images: torch.Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest value of each window, and where in its image it stands."""
    sizes = images.shape[2:]
    counts = [
        (size + 2 * pad - window) // step + 1
        for size, window, step, pad in zip(sizes, kernel, stride, padding, strict=True)
    ]
    if min(counts) < 1 or any(
        2 * pad > window for pad, window in zip(padding, kernel, strict=True)
    ):
        raise ValueError(f"windows {kernel} with padding {padding} on images {tuple(sizes)}")
    # Row and column of each place of each window, (H', k_h) and (W', k_w). A place outside is
    # moved to the border. That lies in the same window, so the maximum stays as it is.
    rows, columns = (
        (torch.arange(count)[:, None] * step - pad + torch.arange(window)).clamp(0, size - 1)
        for size, window, step, pad, count in zip(
            sizes, kernel, stride, padding, counts, strict=True
        )
    )
    index = rows[:, None, :, None] * sizes[1] + columns[None, :, None, :]
    index = index.flatten(2)
    windows = images.flatten(2)[:, :, index]
    values = windows.amax(-1)
    # Of all places with this value the smallest index; the others count as beyond the end.
    index = index.where(windows == values[..., None], sizes.numel())
    return values, index.amin(-1)
