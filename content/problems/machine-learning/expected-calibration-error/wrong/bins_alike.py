# expect: wrong answer: values
# A plain mean over the bins.
import torch


def calibration_error(probabilities, labels, bins):
    if len(labels) == 0 or bins < 1:
        raise ValueError("nothing to do")
    confidence, prediction = probabilities.max(dim=1)
    which = (confidence.double() * bins).ceil().long() - 1
    excess = (prediction == labels).to(confidence) - confidence
    sizes = torch.bincount(which, minlength=bins)
    gaps = torch.bincount(which, weights=excess, minlength=bins) / sizes.clamp(min=1)
    return gaps.abs()[sizes > 0].mean(), gaps
