import torch


def quantized_factors(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bits: int
) -> dict[str, torch.Tensor | float]:
    """Return the codes and scales of B A, its product with `x`, and its relative error."""
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8, not {bits}")
    last = 2 ** (bits - 1) - 1
    a_codes, a_scales = _quantize(a, last, dim=1)
    b_codes, b_scales = _quantize(b, last, dim=0)
    # A component's two scales meet in the middle of the product, and one number does for both.
    scales = a_scales * b_scales
    wide = torch.promote_types(x.dtype, torch.float32)
    y = (x.to(wide) @ a_codes.to(wide).T * scales.to(wide)) @ b_codes.to(wide).T
    return {
        "a": a_codes.to(torch.int8),
        "b": b_codes.to(torch.int8),
        "scales": scales,
        "y": y.to(x.dtype),
        "error": _error(a.double(), b.double(), a_codes.double(), b_codes.double(), scales),
    }


def _quantize(factor: torch.Tensor, last: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes as float32, and one scale for each slice along `dim`."""
    scales = factor.abs().amax(dim) / last
    return (factor / torch.where(scales > 0, scales, 1.0).unsqueeze(dim)).round(), scales


def _error(
    a: torch.Tensor,
    b: torch.Tensor,
    a_codes: torch.Tensor,
    b_codes: torch.Tensor,
    scales: torch.Tensor,
) -> float:
    """Return the relative error from matrices of rank size only."""
    whole = _norm(b, a)
    if whole == 0:
        return 0.0
    # B A − B̂ Â is itself a product of two thin matrices, of rank 2r.
    left = torch.cat([b, b_codes * scales.double()], dim=1)
    right = torch.cat([a, -a_codes])
    return _norm(left, right) / whole


def _norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the Frobenius norm of left @ right."""
    # With left = Q R, and Q's columns orthonormal, the norm is that of R @ right. The same goes
    # for right, so what is multiplied out is small, and no large numbers cancel.
    r = torch.linalg.qr(left).R
    s = torch.linalg.qr(right.T).R
    return (r @ s.T).norm().item()
