# expect: wrong answer: values
# Takes the middle of a bin for the mean confidence in it.
import torch


def calibration_error(probabilities, labels, bins):
    if len(labels) == 0 or bins < 1:
        raise ValueError("nothing to do")
    confidence, prediction = probabilities.max(dim=1)
    which = (confidence.double() * bins).ceil().long() - 1
    right = (prediction == labels).to(confidence)
    sizes = torch.bincount(which, minlength=bins)
    accuracy = torch.bincount(which, weights=right, minlength=bins) / sizes.clamp(min=1)
    middle = (torch.arange(bins).to(confidence) + 0.5) / bins
    gaps = (accuracy - middle) * (sizes > 0)
    return (sizes / len(labels) * gaps.abs()).sum(), gaps
