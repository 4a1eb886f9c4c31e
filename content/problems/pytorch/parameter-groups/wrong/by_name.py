# expect: wrong answer: shape
# Goes by the names that people happen to give.
def split_parameters(model):
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        (kept if "bias" in name or "norm" in name else decayed).append(name)
    return decayed, kept
