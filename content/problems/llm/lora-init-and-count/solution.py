import math

import torch


def init_lora(
    config: dict[str, int],
    rank: int,
    targets: list[str],
    seed: int = 0,
    gaussian: bool = False,
) -> tuple[int, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Return the trainable parameters of all layers, and the factors (A, B) of one."""
    sizes = _sizes(config)
    if rank < 1:
        raise ValueError(f"a rank of {rank}")
    if not targets or len(set(targets)) < len(targets) or not set(targets) <= set(sizes):
        raise ValueError(f"targets must be some of {', '.join(sizes)}, not {targets}")
    generator = torch.Generator().manual_seed(seed)
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in targets:
        inputs, outputs = sizes[name]
        a = torch.empty(rank, inputs)
        if gaussian:
            a.normal_(0, 1 / rank, generator=generator)
        else:
            # The slope √5 makes Kaiming's bound one over the root of the inputs.
            bound = 1 / math.sqrt(inputs)
            a.uniform_(-bound, bound, generator=generator)
        factors[name] = a, torch.zeros(outputs, rank)
    count = config["layers"] * sum(a.numel() + b.numel() for a, b in factors.values())
    return count, factors


def _sizes(config: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of each module of a layer."""
    hidden, heads, groups = config["hidden"], config["heads"], config["kv_heads"]
    if heads % groups:
        raise ValueError(f"{heads} heads cannot share {groups} key heads")
    head = config.get("head_dim", hidden // heads)
    queries, keys, inner = heads * head, groups * head, config["intermediate"]
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
