# expect: wrong answer: values
# Forgets to divide by the rank.
from torch.nn import functional as F


def lora_forward(x, weight, a, b, alpha):
    correction = F.linear(F.linear(x.to(a.dtype), a), b) * alpha
    return (F.linear(x, weight) + correction).to(x.dtype)
