"""A frozen layer and the adapters on it: several by name, some of them active.

    y = base(x) + Σ s_i · B_i A_i x            over the active adapters i

One active adapter on a Linear is computed together with the base (`product`); several are, too,
as one of the sum of their ranks: [s₁B₁ s₂B₂] [A₁; A₂]. Everything else - convolutions, embeddings,
several DoRAs, dropout on several, other adapters for other rows of a batch - is the base's result
plus what each adapter adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from etude.core.errors import AdapterError
from etude.tuning.adapters import bases
from etude.tuning.adapters.bases import Base, LinearLike
from etude.tuning.adapters.kinds.lora import LowRank, Taken
from etude.tuning.adapters.product import adapted_product
from etude.tuning.quant.linear import QuantLinear


class AdaptedLayer(nn.Module):
    """A base layer with named adapters.

    Attributes:
        base: the frozen layer.
        adapters: by name.
        active: names of the adapters that take part; their changes add up.
        enabled: False makes the layer its base.
        rows: for each row of the batch the name of its adapter, or None for the base; overrides
            `active`.
        taken: what the start of one of them took off the base; see `starts`.
    """

    def __init__(self, base: Base) -> None:
        """Wrap `base`, which is frozen; it has no adapter yet."""
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapters = nn.ModuleDict()
        self.active: tuple[str, ...] = ()
        self.enabled = True
        self.rows: Sequence[str | None] | None = None
        self.taken: Taken | None = None
        self.in_features, self.out_features = bases.sizes(base)

    def __getattr__(self, name: str) -> Any:
        """Let code of the model read what it reads off the base: weight, bias, padding_idx."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base":
                raise
            return getattr(self.base, name)

    def named(self) -> dict[str, LowRank]:
        """Return the adapters by name."""
        return dict(cast("Any", self.adapters.items()))

    @property
    def adapter(self) -> LowRank:
        """The only active adapter."""
        (name,) = self.active
        return self.named()[name]

    @torch.no_grad()
    def delta(self) -> Tensor:
        """Return what the active adapters add to the base's W, (out, in) float32, as it computes.

        DoRA's scaling is part of it; so is what a start took off, where it is put back.
        """
        device = bases.device(self.base)
        return self.add_delta(torch.zeros(self.out_features, self.in_features, device=device))

    @torch.no_grad()
    def add_delta(self, W: Tensor) -> Tensor:
        """Add `delta` to a matrix, (out, in) float32, in place; to the base's own, to merge."""
        for adapter in self.chosen():
            A, B = adapter.factors()
            if adapter.magnitude is None:
                W.addmm_(B.float(), A.float(), alpha=adapter.scaling)
                continue
            ratio = (adapter.magnitude / _norm(adapter, self.base))[:, None]
            plain = bases.read_matrix(self.base)
            W.add_(plain.addmm(B.float(), A.float(), alpha=adapter.scaling).mul_(ratio).sub_(plain))
        return W

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted output, in the shape and dtype that the base gives."""
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
        y = self.base(x)
        for adapter in adapters:
            y = y + self._change(adapter, x, y if len(adapters) == 1 else None)
        return y

    def chosen(self) -> list[LowRank]:
        """Return what acts now: the active adapters, and what a start took off the base."""
        own = self.named()
        names = self.active if self.enabled else ()
        chosen = [own[name] for name in names if name in own]
        if self.taken is not None and self.taken.owner not in names:
            chosen.append(self.taken)
        return chosen

    def _together(self, base: LinearLike, x: Tensor, adapters: list[LowRank]) -> Tensor | None:
        """Return base and adapters in one product, or None where that is not the same thing."""
        if len(adapters) == 1:
            adapter = adapters[0]
            A, B = adapter.factors()
            dropped = adapter.drop(x)
            if adapter.magnitude is None:
                return adapted_product(base, x, A, B, adapter.scaling, dropped=dropped)
            if dropped is not None:
                return None
            y = adapted_product(base, x, A, B, adapter.scaling, with_bias=False)
            y = y * (adapter.magnitude / _norm(adapter, base)).to(y.dtype)
            return y if base.bias is None else y + base.bias
        if any(a.magnitude is not None or (a.training and a.dropout) for a in adapters):
            return None
        pairs = [adapter.factors() for adapter in adapters]
        down = torch.cat([A for A, _ in pairs])
        up = torch.cat([a.scaling * B for a, (_, B) in zip(adapters, pairs, strict=True)], 1)
        return adapted_product(base, x, down, up, 1.0)

    def _change(self, adapter: LowRank, x: Tensor, y: Tensor | None) -> Tensor:
        """Return what `adapter` adds to the base's output for `x`; `y` is that output, if known."""
        base = self.base
        dropped = None if isinstance(base, nn.Embedding) else adapter.drop(x)
        seen = x if dropped is None else dropped
        low = adapter.scaling * _low_rank(base, seen, *adapter.factors())
        if adapter.magnitude is None:
            return low
        ratio = (adapter.magnitude / _norm(adapter, base)).to(low.dtype)
        ratio = bases.along_channels(base, ratio)
        # PEFT's reading of dropout in DoRA: the base's part of the change sees it, too.
        plain = bases.without_bias(base, seen, y if dropped is None else None)
        return (ratio - 1) * plain + ratio * low

    def _by_rows(self, x: Tensor, rows: Sequence[str | None]) -> Tensor:
        if len(rows) != len(x):
            raise AdapterError(
                f"{len(rows)} adapters are named for {len(x)} rows of the batch; name one a row, "
                "and run a model that keeps its rows apart"
            )
        base_y = self.base(x)
        y = base_y
        own = self.named()
        groups: list[tuple[LowRank, set[str | None]]] = [
            (own[name], {name}) for name in dict.fromkeys(rows) if name in own
        ]
        if self.taken is not None:
            groups.append((self.taken, {row for row in rows if row != self.taken.owner}))
        for adapter, names in groups:
            places = [i for i, row in enumerate(rows) if row in names]
            index = torch.tensor(places, device=x.device, dtype=torch.long)
            part = self._change(adapter, x.index_select(0, index), base_y.index_select(0, index))
            y = y.index_add(0, index, part.to(y.dtype))
        return y


def _norm(adapter: LowRank, base: Base) -> Tensor:
    return cast("Any", adapter).norm(base)


def _low_rank(base: Base, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """Return B A x on any kind of base, in the dtype of the base's product."""
    dtype = bases.compute_dtype(base)
    down, up = A.to(dtype), B.to(dtype)
    if isinstance(base, nn.Embedding):
        y = F.embedding(x, down.T, base.padding_idx) @ up.T
        scale: Any = getattr(base, "embed_scale", None)
        return y if scale is None else y * torch.as_tensor(scale).to(y.dtype)
    if isinstance(base, nn.Conv1d | nn.Conv2d):
        kernel = down.view(len(down), base.in_channels, *base.kernel_size)
        # The base's own rule for its borders, with another weight.
        h = cast("Any", base)._conv_forward(x, kernel, None)
        point = up.reshape(*up.shape, *([1] * len(base.kernel_size)))
        return (F.conv1d if isinstance(base, nn.Conv1d) else F.conv2d)(h, point)
    return (x.to(dtype) @ down.T @ up.T).to(x.dtype)
