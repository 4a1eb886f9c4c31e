"""Requantisation error of a merge into few bits, measured for the adapter at hand.

The update of a weight is mostly smaller than the distance between two levels, so rounding the
merged weight to these levels undoes it: on normal weights and NF4 the rounding error is 1.03 times
‖ΔW‖ where ‖ΔW‖ is 5 % of ‖W‖, and more where it is less.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError
from etude.core.progress import Progress, SilentProgress
from etude.tuning.adapters import bases
from etude.tuning.adapters.multi_adapter import adapted_layers
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.quant.build import requantized

Requantize = Callable[[Tensor], Tensor]
"""Quantises and dequantises a weight, (out, in) float32."""


@torch.no_grad()
def requantization_errors(
    model: nn.Module, requantize: Requantize, progress: Progress | None = None
) -> list[float]:
    """Return, for each adapted layer, ‖Q(W + ΔW) − (W + ΔW)‖ / ‖ΔW‖, Frobenius norms.

    At 1, rounding the merged weight changes it as much as the adapter did. Layers that the adapter
    does not change are skipped.
    """
    progress = progress or SilentProgress()
    layers = adapted_layers(model)
    progress.start("Measuring the rounding error", len(layers), "layers")
    errors: list[float] = []
    for layer in layers.values():
        merged = layer.add_delta(bases.read_matrix(layer.base))
        change = _norm(layer.delta())
        if change > 0:
            errors.append(_norm(requantize(merged) - merged) / change)
        progress.advance(1)
    progress.finish()
    return errors


def too_few_bits(
    model: nn.Module, dtype: str, requantize: Requantize, progress: Progress
) -> AdapterError:
    """Return the message that refuses a merge into few bits, with measured errors."""
    errors = sorted(requantization_errors(model, requantize, progress)) or [math.inf]
    typical = errors[len(errors) // 2]
    return AdapterError(
        f"not merged into {dtype}: rounding the merged weights would change them by "
        f"{typical:.2g} times what the adapter does ({errors[0]:.2g} to {errors[-1]:.2g} over "
        f"{len(errors)} layers); merge into bfloat16, or use the adapter with the quantised base"
    )


def _norm(matrix: Tensor) -> float:
    return math.sqrt(float(matrix.double().square().sum()))


def _into(quant: QuantSpec) -> Requantize:
    return lambda weight: requantized(weight, quant)


LOW_BITS: dict[str, Requantize] = {
    "nf4": _into(QuantSpec(kind="nf4", double=False)),
    "4bit": _into(QuantSpec(kind="nf4", double=False)),
    "fp4": _into(QuantSpec(kind="fp4", double=False)),
    "int4": _into(QuantSpec(kind="int4", double=False)),
    "int8": _into(QuantSpec(kind="int8")),
    "8bit": _into(QuantSpec(kind="int8")),
}
"""Quantised dtypes that users may request, and their effect on a weight."""
