import torch


def iou_matrix(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of each box of `a` with each box of `b`."""
    kind = a.dtype if a.is_floating_point() else torch.float32
    # Before the first subtraction: bytes wrap around, and areas outgrow short types.
    a, b = a.double()[:, None], b.double()[None]
    shared = _area(
        torch.maximum(a[..., :2], b[..., :2]),
        torch.minimum(a[..., 2:], b[..., 2:]),
    )
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - shared
    # Where nothing is covered, 0 is divided by 1.
    return (shared / union.where(union > 0, 1.0)).to(kind)


def _area(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    # Each side on its own: two negative ones would give a positive area.
    return (high - low).clamp(min=0).prod(-1)
