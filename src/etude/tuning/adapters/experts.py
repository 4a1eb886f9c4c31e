"""Experts whose weights are single tensors of three dimensions, with adapters on these.

transformers keeps the weights of all experts of a layer as parameters of one module, `gate_up_proj`
(or `up_proj`) and `down_proj`, and computes them by one of several functions that are the same for
all models (`transformers.integrations.moe`, `use_experts_implementation`):

    rows sorted by expert → gate_up_proj → gate → down_proj → times the router's weight → summed

Where a recipe adapts them (`adapter.target_parameters`), `AdaptedExperts` takes the module's place
and computes just this, each product with its change (`stacked`). An expert's module whose model
computes it in a way of its own (Llama 4's) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError, NoTargetMatchedError, did_you_mean
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.low_rank import LowRank
from etude.tuning.adapters.stacked import StackedLinear, by_expert, grouped_product
from etude.tuning.adapters.targets import (
    entry_matches,
    in_layers,
    named_modules,
    replace_module,
)

UP = ("gate_up_proj", "up_proj")
DOWN = "down_proj"


class AdaptedExperts(nn.Module):
    """A layer of experts, each of whose products may have adapters.

    Attributes:
        experts: the module it stands for, without the two weights: biases, activation, gate.
        count: how many they are.
        gate_up_proj, down_proj: the weights, `StackedLinear`, or `AdaptedLayer` of one;
            `up_proj` for experts without a gate.
    """

    def __init__(self, experts: nn.Module) -> None:
        """Take the weights out of `experts`, a module that `computes_as_all` is true of."""
        super().__init__()
        self.up = next(name for name in UP if name in dict(experts.named_parameters(recurse=False)))
        transposed = bool(cast("Any", experts).is_transposed)
        weights = {name: experts.get_parameter(name) for name in (self.up, DOWN)}
        for name, weight in weights.items():
            del cast("Any", experts)._parameters[name]
            setattr(self, name, StackedLinear(weight, transposed=transposed))
        self.experts = experts.requires_grad_(False)
        self.count = int(cast("Any", experts).num_experts)

    def __getattr__(self, name: str) -> Any:
        """Forward what model code reads of the experts' module."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "experts":
                raise
            return getattr(self.experts, name)

    def products(self) -> dict[str, AdaptedLayer | StackedLinear]:
        """Return the two products by the names of their weights."""
        return {name: getattr(self, name) for name in (self.up, DOWN)}

    def restored(self) -> nn.Module:
        """Return the experts' own module, with the weights of its products."""
        for name, product in self.products().items():
            held = product.base if isinstance(product, AdaptedLayer) else product
            self.experts.register_parameter(name, cast("nn.Parameter", held.weight))
        return self.experts

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Return the weighted sum of each token's experts, (tokens, width).

        Args:
            hidden: (tokens, width).
            top_k_index: (tokens, k) int64, the experts of each token.
            top_k_weights: (tokens, k), their weights.
        """
        chosen = top_k_index.reshape(-1)
        order = torch.argsort(chosen, stable=True)
        found: Any = torch.bincount(chosen, minlength=self.count)
        counts: list[int] = found.tolist()
        return self.routed(hidden, order, counts, top_k_weights)

    def routed(
        self, hidden: Tensor, order: Tensor, counts: Sequence[int], top_k_weights: Tensor
    ) -> Tensor:
        """As `forward`, for pairs of token and expert in an order by expert.

        Args:
            hidden: (tokens, width).
            order: (tokens · k,) int64, the pairs of the rows that are computed.
            counts: rows of each expert.
            top_k_weights: (tokens, k).
        """
        own: Any = self.experts
        per_token = top_k_weights.shape[-1]
        products = self.products()
        x = hidden[order // per_token]
        inner = self._product(self.up, products[self.up], x, counts)
        inner = own._apply_gate(inner) if own.has_gate else own.act_fn(inner)
        y = self._product(DOWN, products[DOWN], inner, counts)
        if own.has_post_expert_norm:
            y = own.post_expert_norm(y)
        y = y * top_k_weights.reshape(-1)[order].unsqueeze(-1)
        # Back in the order of the tokens, and summed: adding rows by index has no fixed order.
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return y[back].view(len(hidden), per_token, -1).sum(1).to(hidden.dtype)

    def _product(
        self, name: str, product: AdaptedLayer | StackedLinear, x: Tensor, counts: Sequence[int]
    ) -> Tensor:
        base = cast("StackedLinear", product.base if isinstance(product, AdaptedLayer) else product)
        low = _factors(product) if isinstance(product, AdaptedLayer) else None
        y = grouped_product(base, x.to(base.weight.dtype), counts, low)
        if not cast("Any", self.experts).has_bias:
            return y
        bias: Tensor = getattr(self.experts, f"{name}_bias")
        expert = torch.arange(len(bias), device=y.device)
        return y + bias[expert.repeat_interleave(torch.tensor(counts, device=y.device))]


def _factors(layer: AdaptedLayer) -> tuple[Tensor, Tensor] | None:
    """Return A and s·B of the active adapters by expert, their ranks one after another."""
    if layer.rows is not None and layer.enabled:
        raise AdapterError("adapters of experts cannot differ within a batch")
    experts = cast("StackedLinear", layer.base).experts
    pairs: list[tuple[Tensor, Tensor]] = []
    for adapter in cast("list[LowRank]", layer.chosen()):
        A, B = adapter.factors()
        pairs.append(by_expert(A, B * adapter.scaling, experts))
    if len(pairs) < 2:
        return pairs[0] if pairs else None
    return torch.cat([A for A, _ in pairs], 1), torch.cat([B for _, B in pairs], 2)


def computes_as_all(module: nn.Module) -> bool:
    """Return whether a module of experts computes as the functions for all models do."""
    flags = ("is_transposed", "has_gate", "_apply_gate")
    return _are_experts(module) and all(hasattr(module, name) for name in flags)


def _are_experts(module: nn.Module) -> bool:
    stacked = _stacked(module)
    return DOWN in stacked and any(name in stacked for name in UP)


def _stacked(module: nn.Module) -> list[str]:
    """Return the names of a module's own weights of three dimensions."""
    return [name for name, p in module.named_parameters(recurse=False) if p.dim() == 3]


def stacked_weights(model: nn.Module) -> dict[str, bool]:
    """Return the paths of experts' weights of three dimensions, and which can be adapted."""
    found: dict[str, bool] = {}
    for path, module in named_modules(model):
        if isinstance(module, AdaptedExperts):
            found |= {f"{path}.{name}": True for name in module.products()}
        elif isinstance(module, StackedLinear) or not path:
            continue
        elif _are_experts(module):
            able = computes_as_all(module)
            for name in _stacked(module):
                found[f"{path}.{name}"] = able and name in (*UP, DOWN)
    return found


def find_parameters(model: nn.Module, entries: Sequence[str], layers: list[int]) -> list[str]:
    """Return the paths of the experts' weights that a recipe adapts, in the model's order.

    Args:
        model: the model, with or without adapters.
        entries: names (full paths, or their endings) or patterns.
        layers: numbers of the layers; none: all.

    Raises:
        NoTargetMatchedError: an entry matches nothing.
        AdapterError: an entry matches a weight that cannot be adapted.
    """
    if not entries:
        return []
    there = stacked_weights(model)
    chosen: set[str] = set()
    for entry in entries:
        hits = [path for path in there if entry_matches(path, entry)]
        if not hits:
            raise NoTargetMatchedError(_nothing_found(model, entry, list(there)))
        for path in hits:
            if not there[path]:
                owner = cast("type[Any]", type(model.get_submodule(path.rpartition(".")[0])))
                raise AdapterError(
                    f"adapter.target_parameters: {path} is of {owner.__name__}, which computes its "
                    "experts in a way of its own; leave it out"
                )
        chosen.update(hits)
    return in_layers(model, [path for path in there if path in chosen], layers)


def _nothing_found(model: nn.Module, entry: str, there: list[str]) -> str:
    weights = {name for name, p in cast("Any", model).named_parameters() if p.dim() < 3}
    if any(entry_matches(name, entry) for name in weights):
        return (
            f"adapter.target_parameters: {entry!r} is no weight of stacked experts; name its "
            "module in adapter.target_modules"
        )
    names = {".".join(path.split(".")[-2:]) for path in there}
    hint = did_you_mean(entry, names) if names else ""
    known = f"the model has {', '.join(sorted(names))}" if names else "the model has no experts"
    return f"adapter.target_parameters: {entry!r} matches no weight of experts{hint}; {known}"


def open_experts(model: nn.Module, paths: Sequence[str]) -> None:
    """Put an `AdaptedExperts` in the place of each module whose weights are in `paths`."""
    for owner in dict.fromkeys(path.rpartition(".")[0] for path in paths):
        module = model.get_submodule(owner)
        if not isinstance(module, AdaptedExperts):
            replace_module(model, owner, AdaptedExperts(module).train(module.training))


def close_experts(model: nn.Module) -> None:
    """Put the experts' own modules back, with the weights of their products."""
    for path, module in named_modules(model):
        if isinstance(module, AdaptedExperts):
            replace_module(model, path, module.restored())


def peft_paths(paths: Sequence[str]) -> dict[str, str]:
    """Return the names under which PEFT saves adapters of experts' weights, by their paths.

    Each weight has a wrapper around the module. That of the weight which is defined last is the
    outermost, and each inner one is the `base_layer` of another.

    Args:
        paths: all adapted weights, in the model's order.
    """
    by_owner: dict[str, list[str]] = {}
    for path in paths:
        by_owner.setdefault(path.rpartition(".")[0], []).append(path)
    return {
        path: owner + ".base_layer" * (len(own) - 1 - number)
        for owner, own in by_owner.items()
        for number, path in enumerate(own)
    }


def is_stacked(model: nn.Module, path: str) -> bool:
    """Return whether `path` is that of an experts' weight, adapted or not."""
    return isinstance(_base(model, path), StackedLinear)


def _base(model: nn.Module, path: str) -> nn.Module | None:
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    return module.base if isinstance(module, AdaptedLayer) else module


def of_experts(layers: Mapping[str, AdaptedLayer]) -> list[str]:
    """Return the paths of those layers that are experts' weights."""
    return [path for path, layer in layers.items() if isinstance(layer.base, StackedLinear)]
