# expect: wrong answer: mutated input
import torch


def rms_norm(x, weight, eps=1e-6):
    wide = x.float()
    wide *= torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * weight.float()).to(x.dtype)
