# expect: wrong answer: not finite | wrong answer: values
import torch


def quantize_uniform(x, bits, per_row=False, limit=None):
    if not 2 <= bits <= 8 or (limit is not None and limit <= 0):
        raise ValueError("bits or limit")
    if x.numel() == 0:
        return x.to(torch.int8), x.clone()
    last = 2 ** (bits - 1) - 1
    wide = x.double()
    largest = wide.abs().amax(-1, keepdim=True) if per_row else wide.abs().amax()
    scale = last / (largest if limit is None else limit)
    codes = (wide * scale).round().clamp(-last, last)
    return codes.to(torch.int8), (codes / scale).to(x.dtype)
