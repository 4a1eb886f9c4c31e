"""VeRA: frozen random factors shared by the whole model, two trained vectors per module.

    ΔW = diag(b) · B[:out] · diag(d) · A[:, :in]        (Kopiczko et al. 2024, "VeRA", eq. 2)

A (r, largest in) and B (largest out, r) are drawn once from a seed and frozen; every module uses
their leading rows and columns. d (r,) starts at a constant, b (out,) at zero, so ΔW starts at zero.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError
from etude.tuning.adapters import bases
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base
from etude.tuning.adapters.low_rank import LowRank, Taken
from etude.tuning.adapters.registry import (
    AdapterKind,
    AdapterTensor,
    Settings,
    copy_trained,
    refuse_but_linear,
    register,
)
from etude.tuning.adapters.saved_parts import WEIGHTS, PeftOptions, SavedPart, WrittenPart
from etude.tuning.config.sections.adapter import AdapterSpec

_A, _B = "base_model.vera_A", "base_model.vera_B"


@dataclass(frozen=True)
class Projections:
    """The frozen random factors shared by all modules."""

    A: Tensor
    """(rank, largest in_features), float32."""
    B: Tensor
    """(largest out_features, rank), float32."""

    @classmethod
    def draw(cls, rank: int, in_features: int, out_features: int, seed: int) -> Projections:
        """Draw both by Kaiming's uniform rule for the fan-in: A first, then B, as in PEFT."""
        generator = torch.Generator().manual_seed(seed)

        def uniform(rows: int, columns: int) -> Tensor:
            bound = math.sqrt(3.0) * math.sqrt(2.0) / math.sqrt(columns)
            return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)

        return cls(uniform(rank, in_features), uniform(out_features, rank))

    @classmethod
    def for_layers(cls, rank: int, layers: Collection[Base], seed: int) -> Projections:
        """Draw them for the largest of `layers`, on the layers' device."""
        widths = [bases.sizes(base) for base in layers]
        drawn = cls.draw(rank, max(w for w, _ in widths), max(h for _, h in widths), seed)
        return drawn.beside(next(iter(layers)))

    def beside(self, base: Base) -> Projections:
        """Return both on the device of `base`, copied once for all modules."""
        device = bases.device(base)
        return Projections(self.A.to(device), self.B.to(device))


class VeRA(LowRank):
    """VeRA adapter of one module.

    Attributes:
        vera_lambda_d: (rank,), trained. vera_lambda_b: (out,), trained.
        projections: shared by all modules; not in this module's parameters.
        initial: initial value of d.
    """

    kind = "vera"

    def __init__(
        self, base: Base, projections: Projections, dropout: float, initial: float = 0.1
    ) -> None:
        """Create the adapter with both vectors zero; initialise with `reset` or by loading."""
        rank = len(projections.A)
        super().__init__(base, rank, float(rank), 1.0, dropout)
        device = bases.device(base)
        self.vera_lambda_d = nn.Parameter(torch.zeros(rank, device=device))
        self.vera_lambda_b = nn.Parameter(torch.zeros(self.out_features, device=device))
        self.projections = projections
        self.initial = initial

    @torch.no_grad()
    def reset(self, base: Base, generator: torch.Generator) -> None:
        """Set d to `initial` and b to zero."""
        del base, generator
        self.vera_lambda_d.fill_(self.initial)
        self.vera_lambda_b.zero_()

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return diag(d)·A and diag(b)·B, sliced for this module."""
        d, b = self.vera_lambda_d, self.vera_lambda_b
        A = self.projections.A[:, : self.in_features].to(d)
        B = self.projections.B[: self.out_features].to(b)
        return d[:, None] * A, b[:, None] * B

    def trained(self) -> dict[str, nn.Parameter]:
        """Return `vera_lambda_b` and `vera_lambda_d`."""
        return {"vera_lambda_b": self.vera_lambda_b, "vera_lambda_d": self.vera_lambda_d}


@register
class VeRAKind(AdapterKind):
    """VeRA: two vectors per module, the projections once per file. Weight decay leads to ΔW = 0."""

    name = "vera"
    peft_type = "VERA"
    tensors = (
        AdapterTensor("vera_lambda_b", "vera_lambda_b"),
        AdapterTensor("vera_lambda_d", "vera_lambda_d"),
    )
    config_keys = frozenset(
        {
            *("r", "vera_dropout", "d_initial", "projection_prng_key", "save_projection"),
            *("init_weights", "layers_pattern"),
        }
    )
    shared_keys = frozenset({_A, _B})
    beyond_factors = "VeRA's vectors"

    def refuse_misfit(self, path: str, base: Base, rank: int) -> None:
        """Refuse modules other than Linear; any rank is allowed."""
        del rank
        refuse_but_linear("VeRA", path, base)

    def build(
        self, found: dict[str, Base], settings: dict[str, Settings], spec: AdapterSpec, seed: int
    ) -> dict[str, Adapter]:
        """Draw the projections from the seed, and create the adapters."""
        del settings
        projections = Projections.for_layers(spec.rank, found.values(), seed)
        return {
            path: VeRA(base, projections, spec.dropout, spec.vera_initial)
            for path, base in found.items()
        }

    def written(self, adapter: Adapter, base: Base, taken: Taken | None) -> WrittenPart | None:
        """Return both vectors."""
        del base, taken
        return WrittenPart(dict(adapter.trained()), adapter.rank, adapter.alpha)

    def shared(self, adapters: Sequence[Adapter]) -> dict[str, Tensor]:
        """Return the projections."""
        projections = cast("VeRA", adapters[0]).projections
        return {_A: projections.A, _B: projections.B}

    def peft_config(
        self,
        common: dict[str, Any],
        spec: AdapterSpec,
        parts: Mapping[str, WrittenPart],
        adapters: Mapping[str, Adapter],
    ) -> dict[str, Any]:
        """Return the configuration: rank, dropout, initial d; the projections are in the file."""
        del parts, adapters
        return {
            "peft_type": self.peft_type,
            **common,
            "r": spec.rank,
            "vera_dropout": spec.dropout,
            "d_initial": spec.vera_initial,
            "projection_prng_key": 0,
            "save_projection": True,
        }

    def numbers(self, config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return `r` and `vera_dropout`; there is no alpha."""
        return config.get("r"), 1.0, config.get("vera_dropout", 0.0)

    def read_part(
        self, module: str, found: dict[str, Tensor], options: PeftOptions
    ) -> SavedPart | None:
        """Return both vectors."""
        del module, options
        rank = len(found["vera_lambda_d"])
        return SavedPart(found, rank, float(rank), 1.0)

    def check_shared(self, shared: Mapping[str, Tensor], options: PeftOptions) -> None:
        """Check that both projections are present with the configured rank, or neither."""
        if shared and (set(shared) != {_A, _B} or len(shared[_A]) != options.rank):
            raise AdapterError(
                f"{options.folder}: vera_A and vera_B in {WEIGHTS} do not fit rank {options.rank}"
            )

    def shape(
        self, module: str, part: SavedPart, options: PeftOptions, base: Base
    ) -> tuple[int, int]:
        """Return the length of b, and the base's own inputs."""
        del module, options
        return len(part.tensors["vera_lambda_b"]), bases.sizes(base)[0]

    def restore(
        self,
        parts: Mapping[str, SavedPart],
        found: Mapping[str, Base],
        options: PeftOptions,
        shared: Mapping[str, Tensor],
    ) -> dict[str, Adapter]:
        """Use the projections in the file, or draw them from PEFT's seed."""
        if shared:
            first = found[next(iter(parts))]
            projections = Projections(shared[_A], shared[_B]).beside(first)
        else:
            seed = int(options.config.get("projection_prng_key") or 0)
            layers = [found[path] for path in parts]
            projections = Projections.for_layers(options.rank, layers, seed)
        return {
            path: copy_trained(VeRA(found[path], projections, options.dropout), part)
            for path, part in parts.items()
        }
