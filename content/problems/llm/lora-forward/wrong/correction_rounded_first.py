# expect: wrong answer: values
# Rounds twice: the correction, then the sum.
from torch.nn import functional as F


def lora_forward(x, weight, a, b, alpha):
    correction = F.linear(F.linear(x.to(a.dtype), a), b) * (alpha / len(a))
    return F.linear(x, weight) + correction.to(x.dtype)
