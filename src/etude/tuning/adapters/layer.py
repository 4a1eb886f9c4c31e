"""Adapted layer: a frozen layer with named adapters, some of them active.

    y = base(x) + Σ s_i · B_i A_i x            over the active adapters i

One active adapter of a Linear is computed together with the base (`product`); several are computed
as one of the sum of their ranks: [s₁B₁ s₂B₂] [A₁; A₂]. In all other cases (convolutions,
embeddings, adapters other than a pair of factors, dropout with several adapters, different adapters
per row of a batch) the changes of the adapters are added to the base's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from etude.core.errors import AdapterError
from etude.tuning.adapters import bases
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base, LinearLike
from etude.tuning.adapters.low_rank import Taken
from etude.tuning.adapters.product import adapted_product
from etude.tuning.quant.linear import QuantLinear


class AdaptedLayer(nn.Module):
    """A base layer with named adapters.

    Attributes:
        base: the frozen layer.
        adapters: by name.
        active: names of the active adapters; their changes are summed.
        enabled: False disables all adapters.
        rows: the name of the adapter for each row of the batch, or None for the base; overrides
            `active`.
        taken: the part that an adapter's initialisation subtracted from the base; see `init`.
        biases: trained biases, float32, by the adapter's name; the last active one replaces the
            base's.
    """

    def __init__(self, base: Base) -> None:
        """Wrap and freeze `base`, without adapters."""
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapters = nn.ModuleDict()
        self.biases = nn.ParameterDict()
        self.active: tuple[str, ...] = ()
        self.enabled = True
        self.rows: Sequence[str | None] | None = None
        self.taken: Taken | None = None
        self.in_features, self.out_features = bases.sizes(base)

    def __getattr__(self, name: str) -> Any:
        """Forward attributes that model code reads from the base: weight, bias, padding_idx."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base":
                raise
            return getattr(self.base, name)

    def named(self) -> dict[str, Adapter]:
        """Return the adapters by name."""
        return dict(cast("Any", self.adapters.items()))

    def add_bias(self, name: str) -> None:
        """Give the adapter `name` a bias of its own, at first the base's.

        Raises:
            AdapterError: the base has none.
        """
        held = bases.bias(self.base)
        if held is None:
            raise AdapterError(f"a layer without a bias cannot have one trained ({self.base})")
        self.biases[name] = nn.Parameter(held.detach().float().clone())

    def trained_bias(self) -> nn.Parameter | None:
        """Return the bias that replaces the base's, or None."""
        names = [n for n in self.active if n in self.biases] if self.enabled else []
        return cast("nn.Parameter", self.biases[names[-1]]) if names else None

    @property
    def adapter(self) -> Adapter:
        """The only active adapter."""
        (name,) = self.active
        return self.named()[name]

    @torch.no_grad()
    def delta(self) -> Tensor:
        """Return the change of the base's W by the active adapters, (out, in) float32.

        Includes DoRA's scaling, and the part subtracted by an initialisation, if restored.
        """
        device = bases.device(self.base)
        return self.add_delta(torch.zeros(self.out_features, self.in_features, device=device))

    @torch.no_grad()
    def add_delta(self, W: Tensor) -> Tensor:
        """Add `delta` to a matrix, (out, in) float32, in place; used for merging.

        Of experts' weights, (E, out, in).
        """
        for adapter in self.chosen():
            adapter.add_delta(W, self.base)
        return W

    @torch.no_grad()
    def bias_delta(self) -> Tensor | None:
        """Return the change of the base's bias by the active adapters, (out,) float32, or None."""
        changes = [adapter.bias_delta(self.base) for adapter in self.chosen()]
        found = [change for change in changes if change is not None]
        trained, held = self.trained_bias(), bases.bias(self.base)
        if trained is not None and held is not None:
            found.append(trained - held.float())
        return torch.stack(found).sum(0) if found else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted output, in the shape and dtype of the base's output."""
        bias = self.trained_bias()
        if bias is None:
            return self._forward(x)
        with bases.other_bias(self.base, bias):
            y = self._forward(x)
        # Zero: what is frozen to the products below has its gradient from here.
        return y + bases.along_channels(self.base, bias - bias.detach()).to(y.dtype)

    def _forward(self, x: Tensor) -> Tensor:
        if self.rows is not None and self.enabled:
            return self._by_rows(x, self.rows)
        adapters = self.chosen()
        if not adapters:
            return self.base(x)
        if isinstance(self.base, nn.Linear | QuantLinear | Conv1D):
            value = x.to(bases.compute_dtype(self.base))
            together = self._together(self.base, value, adapters)
            if together is not None:
                return together.to(x.dtype)
        y = plain = self.base(x)
        for adapter in adapters:
            y = y + adapter.change(self.base, x, y if len(adapters) == 1 else None)
        return y.to(plain.dtype)

    def chosen(self) -> list[Adapter]:
        """Return the active adapters, and any part to restore to the base."""
        own = self.named()
        names = self.active if self.enabled else ()
        chosen = [own[name] for name in names if name in own]
        if self.taken is not None and self.taken.owner not in names:
            chosen.append(self.taken)
        return chosen

    def _together(self, base: LinearLike, x: Tensor, adapters: list[Adapter]) -> Tensor | None:
        """Return base and adapters in one product, or None if that is not equivalent."""
        if len(adapters) == 1:
            return adapters[0].product(base, x)
        found = [adapter.plain_factors() for adapter in adapters]
        pairs = [pair for pair in found if pair is not None]
        if len(pairs) < len(adapters):
            return None
        down = torch.cat([A for A, _ in pairs])
        up = torch.cat([a.scaling * B for a, (_, B) in zip(adapters, pairs, strict=True)], 1)
        return adapted_product(base, x, down, up, 1.0)

    def _by_rows(self, x: Tensor, rows: Sequence[str | None]) -> Tensor:
        if len(rows) != len(x):
            raise AdapterError(
                f"{len(rows)} adapters were named for a batch of {len(x)} rows; name one per row, "
                "and use a model that does not merge rows"
            )
        base_y = self.base(x)
        y = base_y
        own = self.named()
        groups: list[tuple[Adapter, set[str | None]]] = [
            (own[name], {name}) for name in dict.fromkeys(rows) if name in own
        ]
        if self.taken is not None:
            groups.append((self.taken, {row for row in rows if row != self.taken.owner}))
        for adapter, names in groups:
            places = [i for i, row in enumerate(rows) if row in names]
            index = torch.tensor(places, device=x.device, dtype=torch.long)
            part = adapter.change(
                self.base, x.index_select(0, index), base_y.index_select(0, index)
            )
            y = y.index_add(0, index, part.to(y.dtype))
        return y
