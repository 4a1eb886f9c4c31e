import math

import torch


def best_split(
    features: torch.Tensor,
    gradients: torch.Tensor,
    hessians: torch.Tensor,
    decay: float,
    fewest: int,
    least: float,
) -> dict | None:
    """Return the split with the largest gain, or None where none is worth it."""
    samples = len(features)
    if samples < 2 * fewest:
        return None
    gradients, hessians = gradients.double(), hessians.double()
    values, order = features.sort(dim=0)
    # Row k of the running sums belongs to the split that leaves k + 1 samples on the left; the
    # last row would leave none on the right.
    g_left = gradients[order].cumsum(0)[:-1]
    h_left = hessians[order].cumsum(0)[:-1]
    g, h = gradients.sum(), hessians.sum()
    g_right, h_right = g - g_left, h - h_left
    gain = (g_left**2 / (h_left + decay) + g_right**2 / (h_right + decay) - g**2 / (h + decay)) / 2
    on_left = torch.arange(1, samples)[:, None]
    # Equal values cannot be told apart by a threshold.
    allowed = (values[:-1] < values[1:]) & (on_left >= fewest) & (samples - on_left >= fewest)
    gain = gain.masked_fill(~allowed, -math.inf)
    # argmax finds the first of equal gains: features outside, thresholds inside.
    feature, row = divmod(gain.T.argmax().item(), samples - 1)
    if not gain[row, feature] > least:
        return None
    return {
        "feature": feature,
        "threshold": values[row, feature].item(),
        "gain": gain[row, feature].item(),
        "left": (-g_left / (h_left + decay))[row, feature].item(),
        "right": (-g_right / (h_right + decay))[row, feature].item(),
    }
