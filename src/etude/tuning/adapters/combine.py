"""Adding adapters up: ΔW = Σ w_i ΔW_i, in one model or from their folders.

A sum of products is the product of factors laid side by side, [w₁s₁B₁ w₂s₂B₂] [A₁; A₂], so the sum
is exact at the price of the sum of ranks; its SVD, by way of the small middle of two QRs, brings
the rank down again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from etude.core.atomic_files import to_json
from etude.core.errors import AdapterError, RunError
from etude.tuning.adapters import registry
from etude.tuning.adapters.adapter import Adapter
from etude.tuning.adapters.kinds.lora import LoRA
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.modules_to_save import saved_modules
from etude.tuning.adapters.multi_adapter import (
    AdaptedModule,
    adapted_layers,
    adapter_names,
    describe,
    refuse_name,
    refuse_unknown,
    set_adapter,
)
from etude.tuning.adapters.read import PROVENANCE, SavedAdapter, read_adapter, read_json
from etude.tuning.adapters.save import write_adapter
from etude.tuning.adapters.saved_parts import CONFIG, PREFIX, WEIGHTS
from etude.tuning.config.sections.adapter import FactorSpec

Method = Literal["exact", "svd", "linear"]

Weighted = tuple[float, Tensor, Tensor, float]
"""One adapter's part of a module: its weight w, A, B and s."""


def combine_adapters(
    model: nn.Module,
    weights: Mapping[str, float],
    name: str,
    *,
    method: Method = "exact",
    rank: int | None = None,
) -> list[AdaptedModule]:
    """Make a new adapter of the weighted sum of others: ΔW = Σ w_i ΔW_i; it becomes active.

    Args:
        model: with the adapters.
        weights: w by name; negative ones subtract.
        name: of the new adapter.
        method: `exact` lays the factors side by side, so ranks add up. `svd` keeps the `rank`
            largest directions of the sum. `linear` sums the factors themselves, each with √(w s),
            which is not the sum of the changes but keeps their rank (PEFT's `linear`).
        rank: of the result (`svd`). None: the largest of the parts.

    Raises:
        AdapterError: a name is unknown, or an adapter is not a sum of products (DoRA, modules
            trained whole), or ranks differ (`linear`), or no weight is left.
    """
    if not weights:
        raise AdapterError("no adapter is named to be combined")
    refuse_name(model, name)
    known = adapter_names(model)
    for part in weights:
        refuse_unknown(part, known)
        for module in saved_modules(model).values():
            if part in module.copies:
                raise AdapterError(f"adapter {part!r} has modules trained whole, which do not add")
    for path, layer in adapted_layers(model).items():
        own = layer.named()
        parts = [(w, *_plain(own[n], n, layer, path)) for n, w in weights.items() if n in own]
        parts = [part for part in parts if part[1].numel()]
        if not parts:
            continue
        A, B = combine_factors(parts, method, rank, path)
        adapter = LoRA(layer.base, len(A), float(len(A)), 0.0)
        with torch.no_grad():
            adapter.lora_A.copy_(A)
            adapter.lora_B.copy_(B)
        layer.adapters[name] = adapter.train(layer.training)
    set_adapter(model, name)
    return describe(model, name)


def _plain(
    adapter: Adapter, name: str, layer: AdaptedLayer, path: str
) -> tuple[Tensor, Tensor, float]:
    """Return (A, B, s) of an adapter that is s·B A and nothing else, relative to the first base."""
    reduced = adapter.as_lora(path)
    if reduced is None:
        return torch.empty(0, 0), torch.empty(0, 0), 0.0
    down, up, _ = reduced
    if layer.taken is not None and layer.taken.owner == name:
        A0, B0 = layer.taken.factors()
        down, up = torch.cat([down, A0]), torch.cat([up, -B0], 1)
    return down, up, adapter.scaling


def combine_factors(
    parts: list[Weighted], method: Method, rank: int | None, path: str
) -> tuple[Tensor, Tensor]:
    """Return (A, B) of the weighted sum of one module's changes, at scale 1.

    Raises:
        AdapterError: `linear`, and the ranks differ or a weight is negative.
    """
    if method == "linear":
        if len({len(A) for _, A, _, _ in parts}) > 1:
            raise AdapterError(f"{path}: ranks differ; `linear` sums factors of one rank only")
        if any(w < 0 for w, _, _, _ in parts):
            raise AdapterError("`linear` takes the root of a weight, so none may be negative")
        summed = torch.stack([(w * s) ** 0.5 * A for w, A, _, s in parts]).sum(0)
        return summed, torch.stack([(w * s) ** 0.5 * B for w, _, B, s in parts]).sum(0)
    down = torch.cat([A for _, A, _, _ in parts])
    up = torch.cat([w * s * B for w, _, B, s in parts], 1)
    if method == "exact":
        return down, up
    # The SVD of a product of thin factors, by way of their small middle.
    linalg: Any = torch.linalg
    wanted = min(rank or max(len(A) for _, A, _, _ in parts), *down.shape, len(up))
    q_up, r_up = linalg.qr(up.double())
    q_down, r_down = linalg.qr(down.T.double())
    left, values, right = linalg.svd(r_up @ r_down.T)
    root = values[:wanted].sqrt()
    narrow: Tensor = (root[:, None] * right[:wanted]) @ q_down.T
    wide: Tensor = (q_up @ left[:, :wanted]) * root
    return narrow.float(), wide.float()


@dataclass(frozen=True)
class Combined:
    """What was written."""

    folder: Path
    modules: int
    ranks: tuple[int, int]
    """Smallest and largest rank of a module."""
    bytes: int


def combine_folders(
    weights: Sequence[tuple[str | Path, float]],
    output: str | Path,
    *,
    method: Method = "exact",
    rank: int | None = None,
    overwrite: bool = False,
) -> Combined:
    """Write the weighted sum of saved adapters as a plain LoRA in PEFT's format.

    No model is loaded. The adapters must have been trained on the same base.

    Args:
        weights: folders with their weights.
        output: folder to write.
        method: see `combine_adapters`.
        rank: likewise.
        overwrite: replace what is there.

    Raises:
        AdapterError: one is damaged, of another base, or no sum of products.
        RunError: the folder is there already, or cannot be written.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not overwrite:
        raise RunError(f"{output} is there already: choose another, or replace it by --force")
    saved = [(read_adapter(folder), weight) for folder, weight in weights]
    if not saved:
        raise AdapterError("no adapter is named to be combined")
    for adapter, _ in saved:
        _refuse_unlike(adapter, saved[0][0])
    paths = dict.fromkeys(path for adapter, _ in saved for path in adapter.parts)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for path in paths:
        parts: list[Weighted] = [
            (weight, part.tensors["lora_A"], part.tensors["lora_B"], part.scaling)
            for adapter, weight in saved
            if (part := adapter.parts.get(path)) is not None
        ]
        down, up = combine_factors(parts, method, rank, path)
        ranks[path] = len(down)
        tensors[f"{PREFIX}{path}.lora_A.weight"] = down.contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = up.contiguous()
    first = saved[0][0].folder
    common = max(ranks.values(), key=list(ranks.values()).count)
    other = {path: rank for path, rank in ranks.items() if rank != common}
    config = read_json(first / CONFIG) | {
        "peft_type": "LORA",
        "r": common,
        "lora_alpha": common,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": list(paths),
        "exclude_modules": None,
        "use_rslora": False,
        "init_lora_weights": True,
    }
    texts = {CONFIG: to_json(config, indent=2)}
    if (first / PROVENANCE).exists():
        note = read_json(first / PROVENANCE)
        note |= {"start": "default", "factors": FactorSpec().model_dump()}
        texts[PROVENANCE] = to_json(note, indent=2)
    write_adapter(output, WEIGHTS, tensors, texts)
    size = (output / WEIGHTS).stat().st_size
    return Combined(output, len(ranks), (min(ranks.values()), max(ranks.values())), size)


def _refuse_unlike(adapter: SavedAdapter, first: SavedAdapter) -> None:
    if registry.kind(adapter.kind).beyond_factors is not None:
        raise AdapterError(f"{adapter.folder} is a {adapter.kind} adapter, which does not add up")
    if adapter.modules:
        raise AdapterError(f"{adapter.folder} has modules trained whole, which do not add up")
    if adapter.not_linear:
        raise AdapterError(
            f"{adapter.folder} adapts {min(adapter.not_linear)}, which is no Linear; load the "
            "adapters into the model and combine them there"
        )
    ours, theirs = adapter.provenance, first.provenance
    if ours is not None and theirs is not None and ours.fingerprint != theirs.fingerprint:
        raise AdapterError(
            f"{adapter.folder} was trained on {ours.base}, {first.folder} on {theirs.base}: other "
            "weights, so their changes do not add up"
        )
    if adapter.starts_off_base and ours is not None and ours.quant.kind != "none":
        raise AdapterError(
            f"{adapter.folder} began as a part of a quantised base, on which others were not "
            "trained; their changes do not add up"
        )
