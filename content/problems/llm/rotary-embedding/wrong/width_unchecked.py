# expect: wrong answer: no exception
import torch


def apply_rotary(x, positions, base=10000.0):
    width = x.shape[-1] // 2 * 2
    rates = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = positions[..., None].double() * rates
    if angles.dim() == 3:
        angles = angles[:, None]
    work = torch.promote_types(x.dtype, torch.float32)
    first, second = x.to(work)[..., : width // 2], x.to(work)[..., width // 2 : width]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
