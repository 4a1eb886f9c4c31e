# expect: wrong answer: values
# Adds up the errors of A and of B.
import torch


def quantized_factors(x, a, b, bits):
    if not 2 <= bits <= 8:
        raise ValueError("bits")
    last = 2 ** (bits - 1) - 1
    sa, sb = a.abs().amax(1) / last, b.abs().amax(0) / last
    qa = (a / torch.where(sa > 0, sa, 1.0)[:, None]).round()
    qb = (b / torch.where(sb > 0, sb, 1.0)).round()
    s, wide = sa * sb, torch.promote_types(x.dtype, torch.float32)
    lost = [(a - qa * sa[:, None]).norm() / a.norm(), (b - qb * sb).norm() / b.norm()]
    error = torch.stack(lost).nan_to_num().norm().item() if a.any() and b.any() else 0.0
    y = ((x.to(wide) @ qa.T.to(wide) * s.to(wide)) @ qb.T.to(wide)).to(x.dtype)
    return {"a": qa.to(torch.int8), "b": qb.to(torch.int8), "scales": s, "y": y, "error": error}
