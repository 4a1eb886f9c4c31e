import torch


def calibration_error(
    probabilities: torch.Tensor, labels: torch.Tensor, bins: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the expected calibration error, and each bin's accuracy minus its confidence."""
    if len(labels) == 0 or bins < 1:
        raise ValueError(f"{len(labels)} samples in {bins} bins")
    confidence, prediction = probabilities.max(dim=1)
    # Bins are closed above: rounding up sends an edge down. The bin is chosen in float64, as a
    # product such as 0.7 * 10 may be rounded onto an edge in float32.
    which = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    excess = (prediction == labels).double() - confidence.double()
    total = torch.bincount(which, weights=excess, minlength=bins)
    sizes = torch.bincount(which, minlength=bins)
    # n_b / N · |total_b / n_b|: the sizes cancel, and no bin can divide by 0.
    error = total.abs().sum() / len(labels)
    gaps = total / sizes.clamp(min=1)
    return error.to(probabilities.dtype), gaps.to(probabilities.dtype)
