# expect: wrong answer: values
# Takes the probability of the true class for the confidence.
import torch


def calibration_error(probabilities, labels, bins):
    if len(labels) == 0 or bins < 1:
        raise ValueError("nothing to do")
    confidence = probabilities.gather(1, labels[:, None])[:, 0]
    right = (probabilities.argmax(dim=1) == labels).to(confidence)
    which = (confidence.double() * bins).ceil().long().clamp(min=1) - 1
    sizes = torch.bincount(which, minlength=bins)
    gaps = torch.bincount(which, weights=right - confidence, minlength=bins) / sizes.clamp(min=1)
    return (sizes / len(labels) * gaps.abs()).sum(), gaps
