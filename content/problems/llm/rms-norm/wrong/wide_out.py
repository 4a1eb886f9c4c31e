# expect: wrong answer: dtype
import torch


def rms_norm(x, weight, eps=1e-6):
    wide = x.float()
    return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight
