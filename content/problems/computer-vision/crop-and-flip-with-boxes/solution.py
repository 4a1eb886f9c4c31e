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
    rows, columns = image.shape[1:]
    # What both have in common, in coordinates of the image; empty where they miss each other.
    up, down = max(top, 0), max(top, 0, min(top + height, rows))
    west, east = max(left, 0), max(left, 0, min(left + width, columns))
    crop = image.new_zeros(len(image), height, width)
    crop[:, up - top : down - top, west - left : east - left] = image[:, up:down, west:east]

    corner = boxes.new_tensor([left, top, left, top])
    limits = boxes.new_tensor([width, height, width, height])
    moved = (boxes - corner).clamp(min=0).minimum(limits)
    seen = _area(moved)
    kept = ((seen > 0) & (seen >= share * _area(boxes))).nonzero()[:, 0]
    moved = moved[kept]
    if flip:
        crop = crop.flip(2)
        # The mirror image of a right side is a left side.
        moved = torch.stack(
            [width - moved[:, 2], moved[:, 1], width - moved[:, 0], moved[:, 3]], dim=1
        )
    return crop, moved, kept


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
