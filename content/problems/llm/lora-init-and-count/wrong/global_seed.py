# expect: wrong answer: values
# The right numbers, but the global generator is seeded.
import torch


def init_lora(config, rank, targets, seed=0, gaussian=False):
    d, f, h, k = (config[key] for key in ("hidden", "intermediate", "heads", "kv_heads"))
    e = config.get("head_dim", d // h)
    sizes = {"q_proj": (d, h * e), "o_proj": (h * e, d), "gate_proj": (d, f), "up_proj": (d, f)}
    sizes |= {"k_proj": (d, k * e), "v_proj": (d, k * e), "down_proj": (f, d)}
    if rank < 1 or not targets or len(set(targets)) < len(targets):
        raise ValueError("rank or targets")
    if not set(targets) <= set(sizes) or h % k:
        raise ValueError("targets or heads")
    torch.manual_seed(seed)
    out, count = {}, 0
    for name in targets:
        n, m = sizes[name]
        a = torch.empty(rank, n)
        a.normal_(0, 1 / rank) if gaussian else a.uniform_(-(n**-0.5), n**-0.5)
        out[name] = a, torch.zeros(m, rank)
        count += rank * (n + m)
    return count * config["layers"], out
