# expect: wrong answer: values | wrong answer: shape
# Forgets that keys and values have fewer heads.
import torch


def init_lora(config, rank, targets, seed=0, gaussian=False):
    d, f = config["hidden"], config["intermediate"]
    sizes = dict.fromkeys(["q_proj", "k_proj", "v_proj", "o_proj"], (d, d))
    sizes |= {"gate_proj": (d, f), "up_proj": (d, f), "down_proj": (f, d)}
    if rank < 1 or not targets or len(set(targets)) < len(targets):
        raise ValueError("rank or targets")
    if not set(targets) <= set(sizes) or config["heads"] % config["kv_heads"]:
        raise ValueError("targets or heads")
    g = torch.Generator().manual_seed(seed)
    out, count = {}, 0
    for name in targets:
        n, m = sizes[name]
        a = torch.empty(rank, n)
        a.normal_(0, 1 / rank, generator=g) if gaussian else a.uniform_(
            -(n**-0.5), n**-0.5, generator=g
        )
        out[name] = a, torch.zeros(m, rank)
        count += rank * (n + m)
    return count * config["layers"], out
