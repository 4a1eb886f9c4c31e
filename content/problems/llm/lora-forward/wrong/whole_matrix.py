# expect: wrong answer: values
# Right numbers, but B A is as large as the weight.
import torch
from torch.nn import functional as F


def lora_forward(x, weight, a, b, alpha):
    delta = (b @ a) * (alpha / len(a))
    return (F.linear(x, weight) + F.linear(x.to(a.dtype), delta)).to(x.dtype)
