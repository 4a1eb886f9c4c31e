# expect: wrong answer: not finite
# The mean over no samples.
import torch


def calibration_error(probabilities, labels, bins):
    if len(labels) == 0 or bins < 1:
        raise ValueError("nothing to do")
    confidence, prediction = probabilities.max(dim=1)
    which = (confidence.double() * bins).ceil().long() - 1
    right = (prediction == labels).to(confidence)
    gaps = torch.stack(
        [right[which == b].mean() - confidence[which == b].mean() for b in range(bins)]
    )
    sizes = torch.bincount(which, minlength=bins)
    return (sizes / len(labels) * gaps.abs()).sum(), gaps
