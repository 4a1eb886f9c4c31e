# expect: wrong answer: values
# Of equal gains takes the one with the fewest samples on the left, not the first feature.
import math

import torch


def best_split(features, gradients, hessians, decay, fewest, least):
    n, width = features.shape
    if n < 2 * fewest:
        return None
    g, h = gradients.double(), hessians.double()
    values, order = features.sort(dim=0)
    gl, hl = g[order].cumsum(0)[:-1], h[order].cumsum(0)[:-1]
    gr, hr = g.sum() - gl, h.sum() - hl
    gain = (gl**2 / (hl + decay) + gr**2 / (hr + decay) - g.sum() ** 2 / (h.sum() + decay)) / 2
    left = torch.arange(1, n)[:, None]
    no = (values[:-1] == values[1:]) | (left < fewest) | (n - left < fewest)
    gain = gain.masked_fill(no, -math.inf)
    k, f = divmod(gain.argmax().item(), width)
    if not gain[k, f] > least:
        return None
    a, b = -gl[k, f] / (hl[k, f] + decay), -gr[k, f] / (hr[k, f] + decay)
    threshold = values[k, f].item()
    gain = gain[k, f].item()
    return {"feature": f, "threshold": threshold, "gain": gain, "left": a.item(), "right": b.item()}
