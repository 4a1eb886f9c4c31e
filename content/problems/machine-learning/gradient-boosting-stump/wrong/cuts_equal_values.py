# expect: wrong answer: values
# Splits between samples with the same value.
import math

import torch


def best_split(features, gradients, hessians, decay, fewest, least):
    n = len(features)
    if n < 2 * fewest:
        return None
    g, h = gradients.double(), hessians.double()
    values, order = features.sort(dim=0)
    gl, hl = g[order].cumsum(0)[:-1], h[order].cumsum(0)[:-1]
    gr, hr = g.sum() - gl, h.sum() - hl
    gain = (gl**2 / (hl + decay) + gr**2 / (hr + decay) - g.sum() ** 2 / (h.sum() + decay)) / 2
    left = torch.arange(1, n)[:, None]
    gain = gain.masked_fill((left < fewest) | (n - left < fewest), -math.inf)
    f, k = divmod(gain.T.argmax().item(), n - 1)
    if not gain[k, f] > least:
        return None
    a, b = -gl[k, f] / (hl[k, f] + decay), -gr[k, f] / (hr[k, f] + decay)
    threshold = values[k, f].item()
    gain = gain[k, f].item()
    return {"feature": f, "threshold": threshold, "gain": gain, "left": a.item(), "right": b.item()}
