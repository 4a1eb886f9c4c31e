# expect: wrong answer: values
# Rounds the adapter to the type of the layer.
from torch.nn import functional as F


def lora_forward(x, weight, a, b, alpha):
    a, b = a.to(x.dtype), b.to(x.dtype)
    return F.linear(x, weight) + F.linear(F.linear(x, a), b) * (alpha / len(a))
