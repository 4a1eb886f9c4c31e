# expect: wrong answer: no exception | wrong answer: shape
# Trains what it knows and says nothing of the rest.
import torch


def init_lora(config, rank, targets, seed=0, gaussian=False):
    d, f, h, k = (config[key] for key in ("hidden", "intermediate", "heads", "kv_heads"))
    e = config.get("head_dim", d // h)
    sizes = {"q_proj": (d, h * e), "o_proj": (h * e, d), "gate_proj": (d, f), "up_proj": (d, f)}
    sizes |= {"k_proj": (d, k * e), "v_proj": (d, k * e), "down_proj": (f, d)}
    known = [name for name in targets if name in sizes]
    if rank < 1 or not known or len(set(known)) < len(known) or h % k:
        raise ValueError("rank, targets or heads")
    g = torch.Generator().manual_seed(seed)
    out, count = {}, 0
    for name in known:
        n, m = sizes[name]
        a = torch.empty(rank, n)
        a.normal_(0, 1 / rank, generator=g) if gaussian else a.uniform_(
            -(n**-0.5), n**-0.5, generator=g
        )
        out[name] = a, torch.zeros(m, rank)
        count += rank * (n + m)
    return count * config["layers"], out
