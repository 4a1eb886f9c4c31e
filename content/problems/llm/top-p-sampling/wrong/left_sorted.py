# expect: wrong answer: values
def top_p_probabilities(logits, p):
    if not 0 < p <= 1:
        raise ValueError("p")
    ordered, _ = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    kept = ordered * ((before < p) | (p == 1))
    return kept / kept.sum(-1, keepdim=True)
