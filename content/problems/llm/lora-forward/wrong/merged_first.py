# expect: wrong answer: values
import torch
from torch.nn import functional as F


def lora_forward(x, weight, a, b, alpha):
    return F.linear(x, (weight + alpha / len(a) * (b @ a)).to(x.dtype))
