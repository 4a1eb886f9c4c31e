import torch


def quantize_uniform(
    x: torch.Tensor, bits: int, per_row: bool = False, limit: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the int8 codes of `x` on a grid of `bits` bits, and the values they stand for."""
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8, not {bits}")
    if limit is not None and not limit > 0:
        raise ValueError(f"the limit must be above 0, not {limit}")
    last = 2 ** (bits - 1) - 1
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if limit is not None:
        largest = wide.new_tensor(limit)
    elif per_row:
        largest = wide.abs().amax(dim=-1, keepdim=True)
    else:  # amax of no numbers is an error
        largest = wide.abs().amax() if x.numel() else wide.new_ones(())
    # Zeros are 0 on every grid; the scale 1 keeps 0 · ∞ away.
    scale = torch.where(largest > 0, last / largest, 1.0)
    codes = (wide * scale).round().clamp(-last, last)
    return codes.to(torch.int8), (codes / scale).to(x.dtype)
