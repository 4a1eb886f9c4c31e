# expect: wrong answer: values
# a.shape[1] is n, not r.
from torch.nn import functional as F


def lora_forward(x, weight, a, b, alpha):
    correction = F.linear(F.linear(x.to(a.dtype), a), b)
    return (F.linear(x, weight) + correction * (alpha / a.shape[1])).to(x.dtype)
