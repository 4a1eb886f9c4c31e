# expect: wrong answer: values
def rms_norm(x, weight, eps=1e-6):
    wide = x.float()
    norm = (wide.square().sum(-1, keepdim=True) + eps).sqrt()
    return (wide / norm * weight.float()).to(x.dtype)
