# expect: wrong answer: shape
# Right for nearly all models, but norms may have matrices too.
def split_parameters(model):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [n for n, p in named if p.dim() >= 2], [n for n, p in named if p.dim() < 2]
