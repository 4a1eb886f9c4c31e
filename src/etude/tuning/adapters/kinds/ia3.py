"""IA³: a trained vector that scales a module's inputs or outputs.

    y = l ⊙ (W x + b)        l (out,)        keys, values and other outputs
    y = W (l ⊙ x) + b        l (in,)         inputs of the last Linear of a feed-forward block

(Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", section 3.3; PEFT's IA3 computes the same.) l begins at one, so the layer computes what
its base does. As a change of the weight it is ΔW = (diag(l) − I) W, and that of the bias
(l − 1) ⊙ b; or ΔW = W (diag(l) − I).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError, NoTargetMatchedError, did_you_mean
from etude.tuning.adapters import bases
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.bases import Base, LinearLike
from etude.tuning.adapters.low_rank import Taken
from etude.tuning.adapters.registry import (
    AdapterKind,
    AdapterTensor,
    Settings,
    copy_trained,
    refuse_but_linear,
    register,
)
from etude.tuning.adapters.saved_parts import CONFIG, PeftOptions, SavedPart, WrittenPart
from etude.tuning.adapters.targets import entry_matches
from etude.tuning.config.sections.adapter import AdapterSpec, Ia3Spec

FEEDFORWARD = ("down_proj", "mlp.c_proj", "fc2", "w2", "dense_4h_to_h")
"""Common names of the last Linear of a feed-forward block."""


class IA3(Adapter):
    """IA³ adapter of one Linear.

    Attributes:
        feedforward: whether inputs are scaled instead of outputs.
        ia3_l: l, float32, trained: (1, in) if inputs are scaled, else (out, 1), as in PEFT.
    """

    kind = "ia3"
    no_sum = "an IA³ adapter scales the base itself"

    def __init__(self, base: Base, feedforward: bool) -> None:
        """Create the adapter with l = 1."""
        super().__init__(base, rank=0, alpha=1.0, scaling=1.0, dropout=0.0)
        self.feedforward = feedforward
        shape = (1, self.in_features) if feedforward else (self.out_features, 1)
        self.ia3_l = nn.Parameter(torch.ones(shape, device=bases.device(base)))

    @torch.no_grad()
    def reset(self, base: Base, generator: torch.Generator) -> None:
        """Set l to one."""
        del base, generator
        self.ia3_l.fill_(1.0)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return `ia3_l`."""
        return {"ia3_l": self.ia3_l}

    def product(self, base: LinearLike, x: Tensor) -> Tensor | None:
        """Return the base's output with scaled input or output; in 16 bits, rounded once more."""
        if self.feedforward:
            return base(_scaled(x, self.ia3_l))
        return _scaled(base(x), self.ia3_l)

    def change(self, base: Base, x: Tensor, y: Tensor | None) -> Tensor:
        """Return (l − 1) ⊙ y, or W ((l − 1) ⊙ x)."""
        if self.feedforward:
            return bases.without_bias(base, _scaled(x, self.ia3_l - 1))
        return _scaled(base(x) if y is None else y, self.ia3_l - 1)

    def add_delta(self, W: Tensor, base: Base) -> None:
        """Add (l − 1) times the base's rows or columns to W."""
        W.addcmul_(bases.read_matrix(base), (self.ia3_l - 1).to(W))

    def bias_delta(self, base: Base) -> Tensor | None:
        """Return (l − 1) ⊙ b if outputs are scaled."""
        b = bases.bias(base)
        return None if self.feedforward or b is None else (self.ia3_l.view(-1) - 1) * b.float()

    def extra_repr(self) -> str:
        """Describe the adapter."""
        return f"{self.kind}, scales {'inputs' if self.feedforward else 'outputs'}"


@register
class IA3Kind(AdapterKind):
    """IA³. Its vectors have no weight decay: zero would remove the module from the model."""

    name = "ia3"
    peft_type = "IA3"
    tensors = (AdapterTensor("ia3_l", "ia3_l", decays=False),)
    config_keys = frozenset({"feedforward_modules", "init_ia3_weights"})
    beyond_factors = "IA³'s vectors"
    least_rank = 0

    def refuse_misfit(self, path: str, base: Base, rank: int) -> None:
        """Refuse modules other than Linear."""
        del rank
        refuse_but_linear("IA³", path, base)

    def build(
        self, found: dict[str, Base], settings: dict[str, Settings], spec: AdapterSpec, seed: int
    ) -> dict[str, Adapter]:
        """Create a vector for each module, for its inputs if the recipe says so."""
        del settings, seed
        inputs = _feedforward(list(found), spec.ia3)
        return {path: IA3(base, path in inputs) for path, base in found.items()}

    def written(self, adapter: Adapter, base: Base, taken: Taken | None) -> WrittenPart | None:
        """Return the vector."""
        del base, taken
        return WrittenPart(dict(adapter.trained()), adapter.rank, adapter.alpha)

    def peft_config(
        self,
        common: dict[str, Any],
        spec: AdapterSpec,
        parts: Mapping[str, WrittenPart],
        adapters: Mapping[str, Adapter],
    ) -> dict[str, Any]:
        """Return PEFT's configuration: the target modules and feed-forward modules."""
        del spec, parts
        inputs = {path for path, adapter in adapters.items() if cast("IA3", adapter).feedforward}
        return {
            "peft_type": self.peft_type,
            **{key: value for key, value in common.items() if key != "bias"},
            "feedforward_modules": _peft_feedforward(
                inputs, list(adapters), common["target_modules"]
            ),
            "init_ia3_weights": True,
        }

    def numbers(self, config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return no rank, alpha 1, no dropout."""
        del config
        return 0, 1.0, 0.0

    def read_part(
        self, module: str, found: dict[str, Tensor], options: PeftOptions
    ) -> SavedPart | None:
        """Check that the vector's shape suits its use: (1, in) or (out, 1)."""
        shape = tuple(found["ia3_l"].shape)
        feedforward = _peft_scales_inputs(module, options)
        if len(shape) != 2 or shape[0 if feedforward else 1] != 1:
            wanted = "inputs: (1, in)" if feedforward else "outputs: (out, 1)"
            raise AdapterError(
                f"{options.folder}: {module}.ia3_l is {shape}, but {CONFIG} requires {wanted}"
            )
        return SavedPart(found, 0, 1.0, 1.0)

    def shape(
        self, module: str, part: SavedPart, options: PeftOptions, base: Base
    ) -> tuple[int, int]:
        """Return the length of the vector, and the base's other size."""
        features, out = bases.sizes(base)
        length = part.tensors["ia3_l"].numel()
        return (out, length) if _peft_scales_inputs(module, options) else (length, features)

    def restore(
        self,
        parts: Mapping[str, SavedPart],
        found: Mapping[str, Base],
        options: PeftOptions,
        shared: Mapping[str, Tensor],
    ) -> dict[str, Adapter]:
        """Create the adapters.

        Raises:
            AdapterError: a module is not a Linear.
        """
        del shared
        adapters: dict[str, Adapter] = {}
        for path, part in parts.items():
            refuse_but_linear("IA³", path, found[path])
            adapter = IA3(found[path], _peft_scales_inputs(path, options))
            adapters[path] = copy_trained(adapter, part)
        return adapters


def _scaled(x: Tensor, vector: Tensor) -> Tensor:
    return (x * vector.view(-1)).to(x.dtype)


def _feedforward(paths: list[str], spec: Ia3Spec) -> set[str]:
    """Return the modules whose inputs are scaled.

    Raises:
        NoTargetMatchedError: an entry of the recipe matches no module.
    """
    entries = FEEDFORWARD if spec.feedforward is None else spec.feedforward
    inputs: set[str] = set()
    for entry in entries:
        hit = {path for path in paths if entry_matches(path, entry)}
        if not hit and spec.feedforward is not None:
            hint = did_you_mean(entry, {path.rpartition(".")[2] for path in paths})
            raise NoTargetMatchedError(
                f"adapter.ia3.feedforward: {entry!r} matches none of the adapted modules{hint}"
            )
        inputs |= hit
    return inputs


def _peft_scales_inputs(path: str, options: PeftOptions) -> bool:
    """Return whether `path` is a feed-forward module by PEFT's rules: a pattern, or endings.

    Raises:
        AdapterError: it is not a valid regular expression.
    """
    named: str | list[str] = options.config.get("feedforward_modules") or []
    if not isinstance(named, str):
        return path.endswith(tuple(named))
    try:
        return re.fullmatch(named, path) is not None
    except re.error:
        raise AdapterError(
            f"{options.folder / CONFIG}: feedforward_modules is {named!r}, no regular expression"
        ) from None


def _peft_feedforward(inputs: set[str], paths: list[str], targets: list[str]) -> str | list[str]:
    """Return a PEFT `feedforward_modules` that matches just `inputs` among the adapted `paths`.

    A subset of the targets if that is exact, because PEFT requires list entries to be targets and
    compares endings of paths (`proj` with `down_proj`); otherwise a regular expression.
    """
    named = [t for t in targets if any(entry_matches(path, t) for path in inputs)]
    if {path for path in paths if path.endswith(tuple(named))} == inputs:
        return named
    return "|".join(re.escape(path) for path in paths if path in inputs)
