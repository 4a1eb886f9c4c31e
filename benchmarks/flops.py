"""What a run of LoRA on a Llama-like model has to compute, and what this machine can.

Counted once each, recomputation and filling not credited: forward products of the frozen weights,
their gradients to the input (none below the lowest adapter), both passes of the adapters, causal
attention (half the square) and the output matrix for trained positions.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

SIDE = 2048
"""Of the matrices that the machine's rate is measured with."""


def model_flops(config: Any, rank: int, tokens: int, trained: int, pairs: int) -> float:
    """Return floating-point operations of training on `tokens`, once each.

    Args:
        config: of a Llama-like model, all whose linear layers carry adapters.
        rank: of the adapters.
        tokens: real ones that went through the model.
        trained: those of them that the loss is over.
        pairs: of a token and one that it attends to, over all samples.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    width = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    query, key = config.num_attention_heads * width, config.num_key_value_heads * width
    inner = config.intermediate_size
    shapes = [
        (query, hidden), (key, hidden), (key, hidden), (hidden, query),
        (inner, hidden), (inner, hidden), (hidden, inner),
    ]  # fmt: skip
    frozen = sum(out * into for out, into in shapes)
    thin = rank * sum(out + into for out, into in shapes)
    # Nothing below the first layer is trained: its q, k and v have no gradient to their input.
    first = hidden * (query + 2 * key) + 3 * rank * hidden
    products = tokens * (layers * (4 * frozen + 6 * thin) - 2 * first)
    attention = pairs * layers * query * (4 + 8)
    return float(products + attention + 4 * trained * hidden * config.vocab_size)


def matrix_rate(dtype: torch.dtype, repeats: int = 15) -> float:
    """Return the median rate of a large square product on this machine, operations a second."""
    if dtype == torch.int8:
        a, b = (torch.randint(-127, 127, (SIDE, SIDE), dtype=dtype) for _ in range(2))
        multiply = torch._int_mm
    else:
        a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
        multiply = torch.mm
    multiply(a, b)
    seconds: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        multiply(a, b)
        seconds.append(time.perf_counter() - began)
    return 2 * SIDE**3 / statistics.median(seconds)
