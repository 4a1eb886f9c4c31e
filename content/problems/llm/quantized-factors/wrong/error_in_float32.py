# expect: wrong answer: values | wrong answer: not finite
# The trace formula in float32 loses its digits.
import torch


def norm(left, right):
    return ((left.T @ left) * (right @ right.T)).sum().clamp(min=0).sqrt().item()


def quantized_factors(x, a, b, bits):
    if not 2 <= bits <= 8:
        raise ValueError("bits")
    last = 2 ** (bits - 1) - 1
    sa, sb = a.abs().amax(1) / last, b.abs().amax(0) / last
    qa = (a / torch.where(sa > 0, sa, 1.0)[:, None]).round()
    qb = (b / torch.where(sb > 0, sb, 1.0)).round()
    s, wide = sa * sb, torch.promote_types(x.dtype, torch.float32)
    whole = norm(b, a)
    error = norm(torch.cat([b, qb * s], 1), torch.cat([a, -qa])) / whole if whole else 0.0
    y = ((x.to(wide) @ qa.T.to(wide) * s.to(wide)) @ qb.T.to(wide)).to(x.dtype)
    return {"a": qa.to(torch.int8), "b": qb.to(torch.int8), "scales": s, "y": y, "error": error}
