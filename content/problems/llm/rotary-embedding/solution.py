import torch


def apply_rotary(x: torch.Tensor, positions: torch.Tensor, base: float = 10000.0) -> torch.Tensor:
    """Turn the pairs (x[i], x[i + d/2]) of each vector by position · base^(-2i/d)."""
    width = x.shape[-1]
    if width % 2:
        raise ValueError(f"the width must be even, not {width}")
    rates = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = positions[..., None].double() * rates  # (T, d/2) or (B, T, d/2)
    if angles.dim() == 3:
        angles = angles[:, None]  # one more dimension, for the heads
    work = torch.promote_types(x.dtype, torch.float32)
    cos, sin = angles.cos().to(work), angles.sin().to(work)
    first, second = x.to(work).chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x.dtype)
