# expect: wrong answer: values
import torch


def rms_norm(x, weight, eps=1e-6):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean() + eps) * weight.float()).to(x.dtype)
