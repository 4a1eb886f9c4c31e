# expect: wrong answer: values
def top_p_probabilities(logits, p):
    if not 0 < p <= 1:
        raise ValueError("p")
    probabilities = logits.softmax(-1)
    if p == 1:
        return probabilities
    ordered, _ = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    last = (before < p).sum(-1, keepdim=True) - 1
    kept = probabilities * (probabilities >= ordered.gather(-1, last))
    return kept / kept.sum(-1, keepdim=True)
