import torch


def patch_embedding(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return one vector for each patch of each image, (N, L, D)."""
    count, channels, height, width = images.shape
    side = weight.shape[-1]
    if height % side or width % side:
        raise ValueError(f"{height} × {width} pixels do not divide into patches of {side} × {side}")
    rows, columns = height // side, width // side
    # Split both directions, bring what counts patches to the front, then join.
    patches = (
        images.reshape(count, channels, rows, side, columns, side)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(count, rows * columns, channels * side * side)
    )
    return patches @ weight.flatten(1).T + bias
