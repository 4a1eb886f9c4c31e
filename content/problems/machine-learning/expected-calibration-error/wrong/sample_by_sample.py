# expect: wrong answer: values
# The absolute value is taken before the mean.
import torch


def calibration_error(probabilities, labels, bins):
    if len(labels) == 0 or bins < 1:
        raise ValueError("nothing to do")
    confidence, prediction = probabilities.max(dim=1)
    which = (confidence.double() * bins).ceil().long() - 1
    excess = (prediction == labels).to(confidence) - confidence
    sizes = torch.bincount(which, minlength=bins)
    gaps = torch.bincount(which, weights=excess, minlength=bins) / sizes.clamp(min=1)
    return excess.abs().mean(), gaps
