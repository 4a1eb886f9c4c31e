"""Which subclasses of `nn.Linear` compute y = x Wᵀ + b.

Falcon's does; Llama 4's router, which chooses experts with it, does not. A class with a forward
pass of its own is tried once, on numbers: to be quantised or adapted, a layer has to be a product.
"""

from __future__ import annotations

import copy
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import (
    _disable_current_modes,  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
)
from transformers.pytorch_utils import Conv1D

_known: WeakKeyDictionary[type[nn.Linear], bool] = WeakKeyDictionary()


def is_product(module: nn.Module) -> bool:
    """Return whether `module` is an `nn.Linear` that computes x Wᵀ + b."""
    if not isinstance(module, nn.Linear):
        return False
    kind = type(module)
    if kind.forward is nn.Linear.forward:
        return True
    if kind not in _known:
        _known[kind] = _computes_product(module)
    return _known[kind]


def as_linear(conv: Conv1D) -> nn.Linear:
    """Return the Linear of the same product; its weight is a view, (out, in), of the Conv1D's."""
    weight, bias = cast("tuple[Tensor, Tensor]", (conv.weight, conv.bias))
    linear = nn.Linear(weight.shape[0], weight.shape[1], device="meta")
    linear.weight = nn.Parameter(weight.detach().T, requires_grad=False)
    linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear


def _computes_product(module: nn.Linear) -> bool:
    """Try a copy of the module, whose own weights may be on the meta device or without numbers."""
    modes = cast("Any", _disable_current_modes)
    with modes(), torch.no_grad():
        rows, columns = module.out_features, module.in_features
        weight = torch.linspace(-1.0, 1.0, rows * columns).sin_().view(rows, columns)
        has_bias = "bias" in dict(module.named_parameters())
        bias = torch.linspace(-1.0, 1.0, rows) if has_bias else None
        numbers = {"weight": weight, "bias": bias}
        twin: Any = copy.copy(module)
        twin._parameters = {
            name: None if value is None else nn.Parameter(value, requires_grad=False)
            for name, value in numbers.items()
        }
        x = torch.linspace(0.5, 1.5, 3 * columns).cos_().view(1, 3, columns)
        try:
            found: Any = twin(x)
        except Exception:
            # Such a layer takes something else than a Linear does.
            return False
        expected = F.linear(x, weight, bias)
        return (
            isinstance(found, torch.Tensor)
            and found.shape == expected.shape
            # The same sums of `columns` products, perhaps in another order.
            and torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * columns)
        )
