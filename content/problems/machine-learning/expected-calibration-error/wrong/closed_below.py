# expect: wrong answer: shape
# Edges go to the bin above; a confidence of 1 to one that does not exist.
import torch


def calibration_error(probabilities, labels, bins):
    if len(labels) == 0 or bins < 1:
        raise ValueError("nothing to do")
    confidence, prediction = probabilities.max(dim=1)
    which = (confidence * bins).long()
    excess = (prediction == labels).to(confidence) - confidence
    total = torch.bincount(which, weights=excess, minlength=bins)
    sizes = torch.bincount(which, minlength=bins)
    return total.abs().sum() / len(labels), total / sizes.clamp(min=1)
