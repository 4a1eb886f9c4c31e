# expect: wrong answer: values
# A conversion to int8 cuts off, it does not round.
import torch


def quantize_uniform(x, bits, per_row=False, limit=None):
    if not 2 <= bits <= 8 or (limit is not None and limit <= 0):
        raise ValueError("bits or limit")
    if x.numel() == 0:
        return x.to(torch.int8), x.clone()
    last = 2 ** (bits - 1) - 1
    wide = x.double()
    largest = wide.abs().amax(-1, keepdim=True) if per_row else wide.abs().amax()
    if limit is not None:
        largest = torch.tensor(limit)
    scale = torch.where(largest > 0, last / largest, 1.0)
    codes = (wide * scale).clamp(-last, last).to(torch.int8)
    return codes, (codes / scale).to(x.dtype)
