# expect: wrong answer: values
# Right numbers, from two matrices of the size of the layer.
import torch


def quantized_factors(x, a, b, bits):
    if not 2 <= bits <= 8:
        raise ValueError("bits")
    last = 2 ** (bits - 1) - 1
    sa, sb = a.abs().amax(1) / last, b.abs().amax(0) / last
    qa = (a / torch.where(sa > 0, sa, 1.0)[:, None]).round()
    qb = (b / torch.where(sb > 0, sb, 1.0)).round()
    s, wide = sa * sb, torch.promote_types(x.dtype, torch.float32)
    update = (qb.double() * s.double()) @ qa.double()
    true = b.double() @ a.double()
    error = ((true - update).norm() / true.norm()).item() if true.norm() > 0 else 0.0
    y = (x.to(wide) @ update.T.to(wide)).to(x.dtype)
    return {"a": qa.to(torch.int8), "b": qb.to(torch.int8), "scales": s, "y": y, "error": error}
