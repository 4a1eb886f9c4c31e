# expect: wrong answer: values
import torch


def rms_norm(x, weight, eps=1e-6):
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return (x * scale * weight).to(x.dtype)
