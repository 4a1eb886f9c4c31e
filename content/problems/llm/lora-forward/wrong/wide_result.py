# expect: wrong answer: dtype
from torch.nn import functional as F


def lora_forward(x, weight, a, b, alpha):
    correction = F.linear(F.linear(x.to(a.dtype), a), b)
    return F.linear(x, weight) + correction * (alpha / len(a))
