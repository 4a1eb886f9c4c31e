# expect: wrong answer: values
import torch


def apply_rotary(x, positions, base=10000.0):
    width = x.shape[-1]
    if width % 2:
        raise ValueError("odd")
    rates = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = positions[..., None].double() * rates
    if angles.dim() == 3:
        angles = angles[:, None]
    first, second = x.double().chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos + second * sin, second * cos - first * sin], -1).to(x.dtype)
