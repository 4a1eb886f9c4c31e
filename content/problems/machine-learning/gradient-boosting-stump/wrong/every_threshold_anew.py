# expect: time limit
# Adds up both sides for each threshold.
def best_split(features, gradients, hessians, decay, fewest, least):
    g, h = gradients.double(), hessians.double()
    whole = g.sum() ** 2 / (h.sum() + decay)
    best = None
    for f in range(features.shape[1]):
        for t in features[:, f].unique():
            left = features[:, f] <= t
            count = int(left.sum())
            if count < fewest or len(features) - count < fewest:
                continue
            gl, hl, gr, hr = g[left].sum(), h[left].sum(), g[~left].sum(), h[~left].sum()
            gain = ((gl**2 / (hl + decay) + gr**2 / (hr + decay) - whole) / 2).item()
            if gain > least and (best is None or gain > best["gain"]):
                best = {
                    "feature": f,
                    "threshold": t.item(),
                    "gain": gain,
                    "left": (-gl / (hl + decay)).item(),
                    "right": (-gr / (hr + decay)).item(),
                }
    return best
