# expect: wrong answer: values
# Divides by numbers of samples, as if the loss were a squared error.
import math

import torch


def best_split(features, gradients, hessians, decay, fewest, least):
    n = len(features)
    if n < 2 * fewest:
        return None
    g, h = gradients.double(), torch.ones(n, dtype=torch.float64)
    values, order = features.sort(dim=0)
    gl, hl = g[order].cumsum(0)[:-1], h[order].cumsum(0)[:-1]
    gr, hr = g.sum() - gl, h.sum() - hl
    gain = (gl**2 / (hl + decay) + gr**2 / (hr + decay) - g.sum() ** 2 / (h.sum() + decay)) / 2
    left = torch.arange(1, n)[:, None]
    no = (values[:-1] == values[1:]) | (left < fewest) | (n - left < fewest)
    gain = gain.masked_fill(no, -math.inf)
    f, k = divmod(gain.T.argmax().item(), n - 1)
    if not gain[k, f] > least:
        return None
    a, b = -gl[k, f] / (hl[k, f] + decay), -gr[k, f] / (hr[k, f] + decay)
    threshold = values[k, f].item()
    gain = gain[k, f].item()
    return {"feature": f, "threshold": threshold, "gain": gain, "left": a.item(), "right": b.item()}
