# expect: wrong answer: values
import torch


def norm(left, right):
    return (torch.linalg.qr(left).R @ torch.linalg.qr(right.T).R.T).norm().item()


def quantized_factors(x, a, b, bits):
    if not 2 <= bits <= 8:
        raise ValueError("bits")
    last, r = 2 ** (bits - 1) - 1, len(a)
    sa, sb = (a.abs().amax() / last).expand(r), (b.abs().amax() / last).expand(r)
    qa = (a / torch.where(sa > 0, sa, 1.0)[:, None]).round()
    qb = (b / torch.where(sb > 0, sb, 1.0)).round()
    s, wide = sa * sb, torch.promote_types(x.dtype, torch.float32)
    whole = norm(b.double(), a.double())
    left = torch.cat([b.double(), qb.double() * s.double()], 1)
    error = norm(left, torch.cat([a, -qa]).double()) / whole if whole else 0.0
    y = ((x.to(wide) @ qa.T.to(wide) * s.to(wide)) @ qb.T.to(wide)).to(x.dtype)
    return {"a": qa.to(torch.int8), "b": qb.to(torch.int8), "scales": s, "y": y, "error": error}
