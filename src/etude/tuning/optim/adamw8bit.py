"""8-bit AdamW: both moments in 8 bits, 2.03 bytes per trained weight instead of 8.

Each step decodes a panel of the moments, updates them and the weights in float32, and requantises
the moments in blocks of 256 with one float32 scale each: the first moment with the signed dynamic
map, the second with the unsigned one (Dettmers et al. 2022, "8-bit Optimizers via Block-wise
Quantization", section 2). As in bitsandbytes, parameters of fewer than 4096 elements have float32
moments: quantising them saves nothing, and such parameters (norms, biases) are sensitive.

Values are rounded to the nearest level, as in bitsandbytes on a GPU, except for second moments that
would be rounded to zero (`kernels/dynamic.py`). On a CPU, bitsandbytes looks codes up in a table of
65536 uniform cells, which cannot resolve values below 1/65536 of a block's scale and maps exact
zeros to 2e-5 of it; that behaviour is not reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.kernels.codebooks import DYNAMIC_BLOCK
from etude.tuning.kernels.dynamic import dequantize_dynamic, quantize_dynamic
from etude.tuning.optim.adamw import PlacedAdamW
from etude.tuning.optim.paged import Allocation, StateMemory
from etude.tuning.optim.registry import FLOAT32, OptimizerKind, betas, register

SMALLEST = 4096
"""Smallest number of elements of a parameter whose moments are stored in 8 bits."""


class AdamW8bit(PlacedAdamW):
    """AdamW with moments in 8 bits; see `PlacedAdamW` for the arguments."""

    def wanted(self, parameter: Tensor) -> dict[str, Allocation]:
        """Return both moments, and their scales if they are in 8 bits."""
        count, device = parameter.numel(), parameter.device
        if count < SMALLEST:
            moment = Allocation((count,), torch.float32, device)
            return {"exp_avg": moment, "exp_avg_sq": moment}
        codes = Allocation((count,), torch.uint8, device)
        scales = Allocation((-(-count // DYNAMIC_BLOCK),), torch.float32, device)
        return {
            "exp_avg": codes,
            "exp_avg_sq": codes,
            "exp_avg_absmax": scales,
            "exp_avg_sq_absmax": scales,
        }

    def update(
        self, weight: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Update one panel in place, in float32."""
        (beta1, beta2), lr, step = group["betas"], group["lr"], float(state["step"])
        m, v = state["exp_avg"], state["exp_avg_sq"]
        quantised = m.dtype == torch.uint8
        if quantised:
            m = dequantize_dynamic(m, state["exp_avg_absmax"], signed=True)
            v = dequantize_dynamic(v, state["exp_avg_sq_absmax"], signed=False)
        g, w = grad.float(), weight.float()
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denominator = v.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        w.mul_(1 - lr * group["weight_decay"])
        w.addcdiv_(m, denominator, value=-lr / (1 - beta1**step))
        if w is not weight:
            weight.copy_(w)
        if quantised:
            for name, moment, signed in (("exp_avg", m, True), ("exp_avg_sq", v, False)):
                codes, absmax = quantize_dynamic(moment, signed=signed)
                state[name].copy_(codes)
                state[f"{name}_absmax"].copy_(absmax)


def _make(
    groups: list[dict[str, Any]], spec: TrainSpec, memory: StateMemory | None
) -> torch.optim.Optimizer:
    return AdamW8bit(
        groups,
        lr=spec.lr,
        betas=betas(spec, 0.999),
        weight_decay=spec.weight_decay,
        memory=memory,
    )


def _state_bytes(shape: Sequence[int]) -> int:
    count = prod(shape)
    if count < SMALLEST:
        return 2 * FLOAT32 * count
    return 2 * (count + FLOAT32 * -(-count // DYNAMIC_BLOCK))


register(OptimizerKind("adamw8bit", _make, _state_bytes))
