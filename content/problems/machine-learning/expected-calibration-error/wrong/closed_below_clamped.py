# expect: wrong answer: values
# No bin too many, but edges go to the bin above.
import torch


def calibration_error(probabilities, labels, bins):
    if len(labels) == 0 or bins < 1:
        raise ValueError("nothing to do")
    confidence, prediction = probabilities.max(dim=1)
    which = (confidence.double() * bins).long().clamp(max=bins - 1)
    excess = (prediction == labels).to(confidence) - confidence
    total = torch.bincount(which, weights=excess, minlength=bins)
    sizes = torch.bincount(which, minlength=bins)
    return total.abs().sum() / len(labels), total / sizes.clamp(min=1)
