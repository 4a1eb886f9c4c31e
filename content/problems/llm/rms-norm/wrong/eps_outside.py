# expect: wrong answer: values
def rms_norm(x, weight, eps=1e-6):
    wide = x.float()
    root = wide.square().mean(-1, keepdim=True).sqrt()
    return (wide / (root + eps) * weight.float()).to(x.dtype)
