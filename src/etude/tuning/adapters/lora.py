"""LoRA: a frozen Linear plus a trained product of two thin matrices.

         ┌──────────── W (out, in), frozen, dense or 4-bit ──────────┐
    x ───┤                                                           ├─(+)─▶ y
         └─ dropout ─▶ A (r, in) ─▶ h (…, r) ─▶ B (out, r) ─▶ · α/r ─┘

    y = x Wᵀ + b + s · (x Aᵀ) Bᵀ,  s = α / r        (Hu et al. 2022, "LoRA", eq. 3)

In the letters of ΔW = U Vᵀ: U = s·B, V = Aᵀ. B starts at zero, so ΔW does; A starts uniform in
±1/√in, which is PyTorch's and PEFT's initialisation of a Linear.

The layer is one autograd function, so that autograd keeps x, the r-wide h and nothing else; a
4-bit W is decoded again in the backward pass. By associativity every product of the adapter goes
through r, and none has the size of W:

    dB = s · gᵀ h        dA = (s · g B)ᵀ x        dx = g W + (s · g B) A

A and B are kept in float32 and cast to the dtype of the base for the products; their gradients
come back in float32, so that the optimiser's small steps are not rounded away.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from etude.errors import AdapterError
from etude.tuning.adapters.targets import find_targets, named_modules
from etude.tuning.quant.linear import QuantLinear
from etude.tuning.specs import AdapterSpec


@dataclass(frozen=True)
class AdaptedModule:
    """One adapted layer, as the report lists it."""

    name: str
    """Dotted path in the model."""
    in_features: int
    out_features: int
    rank: int
    parameters: int
    """Trained numbers: rank * (in_features + out_features)."""


class LoRALinear(nn.Module):
    """A Linear or QuantLinear with an adapter beside it.

    Attributes:
        base: the frozen layer.
        lora_A: (rank, in_features), float32, trained; `.to` a 16-bit dtype leaves it so.
        lora_B: (out_features, rank), likewise.
        scaling: s = alpha / rank.
        dropout: probability of zeroing an element of the adapter's input, in training.
        enabled: False makes the layer its base.
    """

    def __init__(
        self, base: nn.Linear | QuantLinear, rank: int, alpha: float, dropout: float
    ) -> None:
        """Wrap `base`; both factors are zero until `reset` or until loaded."""
        super().__init__()
        self.base = base.requires_grad_(False)
        self.in_features = base.in_features
        self.out_features = base.out_features
        self.rank = rank
        self.alpha = alpha
        self.scaling = alpha / rank
        self.dropout = dropout
        self.enabled = True
        device = base.codes.device if isinstance(base, QuantLinear) else base.weight.device
        self.lora_A = nn.Parameter(torch.zeros(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw A uniformly from ±1/√in and set B to zero, so that ΔW = 0.

        That is Kaiming's uniform rule with a = √5 (He et al. 2015), what a new Linear gets.
        """
        bound = 1 / math.sqrt(self.in_features)
        start = torch.empty(self.lora_A.shape).uniform_(-bound, bound, generator=generator)
        self.lora_A.copy_(start)
        self.lora_B.zero_()

    @property
    def U(self) -> Tensor:  # noqa: N802 - the name in ΔW = U Vᵀ
        """s·B, (out, r)."""
        return self.scaling * self.lora_B

    @property
    def V(self) -> Tensor:  # noqa: N802 - the name in ΔW = U Vᵀ
        """Aᵀ, (in, r)."""
        return self.lora_A.T

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype that the products are computed in: the base's."""
        base = self.base
        return base.compute_dtype if isinstance(base, QuantLinear) else base.weight.dtype

    @torch.no_grad()
    def delta(self) -> Tensor:
        """Return ΔW = s·B A, (out, in), in the dtype of the factors."""
        return self.U @ self.V.T

    def forward(self, x: Tensor) -> Tensor:
        """Return x (W + ΔW)ᵀ + b: (..., in_features) to (..., out_features), dtype of x."""
        if not self.enabled:
            return self.base(x)
        value = x.to(self.compute_dtype)
        dropped = F.dropout(value, self.dropout) if self.training and self.dropout else None
        y = _adapted_product(value, dropped, self.lora_A, self.lora_B, self.scaling, self.base)
        return y.to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device or dtype as any module, but keep the factors' precision."""
        before = self.lora_A.data, self.lora_B.data
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
        for factor, value in zip((self.lora_A, self.lora_B), before, strict=True):
            if factor.dtype in (torch.bfloat16, torch.float16):
                factor.data = value.to(factor.device)
        return self

    def extra_repr(self) -> str:
        """Describe the adapter; the base describes itself."""
        return f"rank={self.rank}, alpha={self.alpha:g}, dropout={self.dropout:g}"


class _AdaptedProduct(torch.autograd.Function):
    """Base and adapter in one node; see the head of this module for the equations.

    Where dropout is on, the adapter's input is another tensor than the base's, with a gradient of
    its own, and autograd goes on through the dropout.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        A: Tensor,
        B: Tensor,
        scaling: float,
        base: nn.Linear | QuantLinear,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        source = rows if dropped is None else dropped.reshape(rows.shape)
        h = source @ A.to(x.dtype).T
        y = F.linear(rows, _weight(base), base.bias)
        y.addmm_(h, B.to(x.dtype).T, alpha=scaling)
        # W needs no gradient, so the base's own input is not kept.
        ctx.save_for_backward(source, h, A, B)
        ctx.scaling, ctx.base = scaling, base
        ctx.shape, ctx.has_dropout = x.shape, dropped is not None
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, grad_output: Tensor
    ) -> tuple[Tensor | None, ...]:
        source, h, A, B = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        needs_x, needs_dropped, needs_A, needs_B, *_ = ctx.needs_input_grad
        g = grad_output.reshape(-1, grad_output.shape[-1])
        gh = (g @ B.to(g.dtype)).mul_(ctx.scaling)  # gradient of h, r wide

        grad_B = (g.T @ h).to(B.dtype).mul_(ctx.scaling) if needs_B else None
        grad_A = (gh.T @ source).to(A.dtype) if needs_A else None
        grad_x = g @ _weight(ctx.base) if needs_x else None
        grad_dropped = None
        if not ctx.has_dropout and grad_x is not None:
            grad_x.addmm_(gh, A.to(g.dtype))
        elif needs_dropped:
            grad_dropped = (gh @ A.to(g.dtype)).view(ctx.shape)
        grad_x = None if grad_x is None else grad_x.view(ctx.shape)
        return grad_x, grad_dropped, grad_A, grad_B, None, None


_adapted_product = cast(
    "Callable[[Tensor, Tensor | None, Tensor, Tensor, float, nn.Module], Tensor]",
    _AdaptedProduct.apply,  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
)


def _weight(base: nn.Linear | QuantLinear) -> Tensor:
    return base.weight_for_compute() if isinstance(base, QuantLinear) else base.weight


def add_lora(model: nn.Module, spec: AdapterSpec, *, seed: int) -> list[AdaptedModule]:
    """Replace the target modules of `model` by LoRALinear, in place, and freeze all else.

    Each adapter is drawn from a generator seeded by `seed` and the module's name, so that neither
    the order of the modules nor the presence of others changes it.

    Returns:
        What was adapted, in the model's order.

    Raises:
        NoTargetMatchedError: an entry of the targets matches nothing.
        AdapterError: the rank is larger than a matrix, or the model has adapters already.
    """
    refuse_second_adapter(model)
    names = find_targets(model, spec.targets)
    for name in names:
        _refuse_large_rank(name, cast("nn.Linear | QuantLinear", model.get_submodule(name)), spec)
    wrapped = wrap_modules(model, names, spec.rank, spec.alpha, spec.dropout)
    for name, layer in wrapped.items():
        layer.reset(_generator(seed, name))
    return describe(wrapped)


def wrap_modules(
    model: nn.Module, names: list[str], rank: int, alpha: float, dropout: float
) -> dict[str, LoRALinear]:
    """Put a zero adapter on each named Linear, in place, and freeze everything else."""
    model.requires_grad_(False)
    wrapped: dict[str, LoRALinear] = {}
    for name in names:
        base = cast("nn.Linear | QuantLinear", model.get_submodule(name))
        wrapped[name] = LoRALinear(base, rank, alpha, dropout).train(base.training)
        replace_module(model, name, wrapped[name])
    return wrapped


def refuse_second_adapter(model: nn.Module) -> None:
    """Refuse a model that has adapters.

    Raises:
        AdapterError: it has.
    """
    if adapted_layers(model):
        raise AdapterError("the model carries an adapter already; load the base anew")


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in place of the one at the dotted path `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def adapted_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the adapted layers of `model` by their dotted paths."""
    return {name: m for name, m in named_modules(model) if isinstance(m, LoRALinear)}


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained factors by name, `….q_proj.lora_A` and `….q_proj.lora_B`."""
    return {
        f"{name}.{factor}": parameter
        for name, layer in adapted_layers(model).items()
        for factor, parameter in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
    }


def describe(layers: dict[str, LoRALinear]) -> list[AdaptedModule]:
    """Return what the report lists of each adapted layer."""
    return [
        AdaptedModule(
            name,
            layer.in_features,
            layer.out_features,
            layer.rank,
            layer.lora_A.numel() + layer.lora_B.numel(),
        )
        for name, layer in layers.items()
    ]


@contextmanager
def adapter_disabled(model: nn.Module) -> Generator[None]:
    """Within, `model` is its base: the adapters are passed over. They come back on an error too."""
    layers = [layer for layer in adapted_layers(model).values() if layer.enabled]
    try:
        for layer in layers:
            layer.enabled = False
        yield
    finally:
        for layer in layers:
            layer.enabled = True


def _refuse_large_rank(name: str, base: nn.Linear | QuantLinear, spec: AdapterSpec) -> None:
    largest = min(base.in_features, base.out_features)
    if spec.rank > largest:
        raise AdapterError(
            f"adapter.rank {spec.rank} is larger than {name}, a matrix of {base.out_features} × "
            f"{base.in_features}; use at most {largest}, or leave it out of adapter.targets"
        )


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
