"""Combining adapters: ΔW = Σ w_i ΔW_i, in one model or from saved folders.

A sum of products is the product of concatenated factors, [w₁s₁B₁ w₂s₂B₂] [A₁; A₂], so the sum is
exact, with the sum of the ranks. Its SVD, computed from the small core of two QR decompositions,
reduces the rank again.
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
from etude.tuning.adapters.saved_parts import CONFIG, PREFIX, WEIGHTS, weight_of
from etude.tuning.adapters.stacked import StackedLinear
from etude.tuning.config.sections.adapter import FactorSpec

Method = Literal["exact", "svd", "linear"]

Weighted = tuple[float, Tensor, Tensor, float]
"""One adapter's contribution to a module: its weight w, A, B and s."""


def combine_adapters(
    model: nn.Module,
    weights: Mapping[str, float],
    name: str,
    *,
    method: Method = "exact",
    rank: int | None = None,
) -> list[AdaptedModule]:
    """Add a new adapter, the weighted sum ΔW = Σ w_i ΔW_i of others, and activate it.

    Args:
        model: the model with the adapters.
        weights: w by adapter name; may be negative.
        name: name of the new adapter.
        method: `exact` concatenates the factors, so ranks add up. `svd` keeps the `rank`
            largest directions of the sum. `linear` sums the factors themselves, each scaled by
            √(w s); this keeps the rank but is not the sum of the changes (PEFT's `linear`).
        rank: rank of the result (`svd`). None: the largest rank of the adapters.

    Raises:
        AdapterError: a name is unknown, an adapter cannot be combined (DoRA, modules trained
            in full), ranks differ (`linear`), or all weights are zero.
    """
    if not weights:
        raise AdapterError("no adapters to combine were named")
    refuse_name(model, name)
    known = adapter_names(model)
    for part in weights:
        refuse_unknown(part, known)
        for module in saved_modules(model).values():
            if part in module.copies:
                raise AdapterError(f"adapter {part!r} has fully trained modules: cannot combine it")
    for path, layer in adapted_layers(model).items():
        own = layer.named()
        if isinstance(layer.base, StackedLinear) and own.keys() & weights.keys():
            raise AdapterError(f"{path} are weights of experts, whose adapters cannot be combined")
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
    """Return (A, B, s) of an adapter with ΔW = s·B A relative to the original base."""
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
            raise AdapterError(f"{path}: ranks differ; `linear` requires equal ranks")
        if any(w < 0 for w, _, _, _ in parts):
            raise AdapterError("`linear` takes the square root of weights, so none may be negative")
        summed = torch.stack([(w * s) ** 0.5 * A for w, A, _, s in parts]).sum(0)
        return summed, torch.stack([(w * s) ** 0.5 * B for w, _, B, s in parts]).sum(0)
    down = torch.cat([A for _, A, _, _ in parts])
    up = torch.cat([w * s * B for w, _, B, s in parts], 1)
    if method == "exact":
        return down, up
    # SVD of a product of thin factors, through their small core.
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
    """Summary of the written adapter."""

    folder: Path
    modules: int
    ranks: tuple[int, int]
    """Smallest and largest rank over the modules."""
    bytes: int


def combine_folders(
    weights: Sequence[tuple[str | Path, float]],
    output: str | Path,
    *,
    method: Method = "exact",
    rank: int | None = None,
    overwrite: bool = False,
    modules: bool = False,
) -> Combined:
    """Write the weighted sum of saved adapters as a plain LoRA in PEFT's format.

    No model is loaded. The adapters must have been trained on the same base.

    Args:
        weights: weight by folder.
        output: directory to write.
        method: see `combine_adapters`.
        rank: likewise.
        overwrite: replace an existing folder.
        modules: also sum the weights of modules that were trained whole, such as heads, which is
            meant for weights that sum to 1; else adapters that have some are refused.

    Raises:
        AdapterError: one is damaged, has another base, or cannot be combined.
        RunError: the folder exists, or cannot be written.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not overwrite:
        raise RunError(f"{output} already exists; choose another, or replace it with --force")
    saved = [(read_adapter(folder), weight) for folder, weight in weights]
    if not saved:
        raise AdapterError("no adapters to combine were named")
    for adapter, _ in saved:
        _refuse_unlike(adapter, saved[0][0], modules=modules)
    paths = dict.fromkeys(path for adapter, _ in saved for path in adapter.parts)
    tensors = _summed_modules(saved)
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
    # PEFT finds some Linears by the path of their weight only, and matches patterns with that.
    parameters = [
        weight_of(path) for path in ranks if any(one.options.is_parameter(path) for one, _ in saved)
    ]
    names = {path: weight_of(path) for path in ranks if weight_of(path) in parameters}
    other = {names.get(path, path): rank for path, rank in ranks.items() if rank != common}
    config = read_json(first / CONFIG) | {
        "peft_type": "LORA",
        "r": common,
        "lora_alpha": common,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": [path for path in paths if path not in names],
        "target_parameters": parameters or None,
        "exclude_modules": None,
        "use_rslora": False,
        "init_lora_weights": True,
    }
    if parameters:
        config["lora_dropout"] = 0.0  # PEFT refuses it beside them
    texts = {CONFIG: to_json(config, indent=2)}
    if (first / PROVENANCE).exists():
        note = read_json(first / PROVENANCE)
        note |= {"start": "default", "factors": FactorSpec().model_dump()}
        texts[PROVENANCE] = to_json(note, indent=2)
    write_adapter(output, WEIGHTS, tensors, texts)
    size = (output / WEIGHTS).stat().st_size
    return Combined(output, len(ranks), (min(ranks.values()), max(ranks.values())), size)


def _summed_modules(saved: Sequence[tuple[SavedAdapter, float]]) -> dict[str, Tensor]:
    """Return the weighted sums of the modules trained whole, by their names in the file.

    Raises:
        AdapterError: the adapters do not have the same ones.
    """
    flat = [
        {
            f"{PREFIX}{path}.{part}": weight * tensor
            for path, module in adapter.modules.items()
            for part, tensor in module.items()
        }
        for adapter, weight in saved
    ]
    shapes = [{key: tensor.shape for key, tensor in one.items()} for one in flat]
    for (adapter, _), own in zip(saved, shapes, strict=True):
        if own != shapes[0]:
            raise AdapterError(
                f"{adapter.folder} and {saved[0][0].folder} have trained other modules whole, or "
                "heads of other sizes; they cannot be summed"
            )
    return {key: torch.stack([one[key] for one in flat]).sum(0) for key in flat[0]}


def _refuse_unlike(adapter: SavedAdapter, first: SavedAdapter, *, modules: bool) -> None:
    if registry.kind(adapter.kind).beyond_factors is not None:
        raise AdapterError(f"{adapter.folder} is of kind {adapter.kind}, which cannot be combined")
    if (more := adapter.beside_factors) and not (modules and adapter.only_modules_beside):
        raise AdapterError(f"{adapter.folder} has {more}, which cannot be combined")
    if adapter.not_linear:
        raise AdapterError(
            f"{adapter.folder} adapts {min(adapter.not_linear)}, which is not a Linear; load the "
            "adapters into the model and combine them there"
        )
    ours, theirs = adapter.provenance, first.provenance
    if ours is not None and theirs is not None and ours.fingerprint != theirs.fingerprint:
        raise AdapterError(
            f"{adapter.folder} was trained on {ours.base}, {first.folder} on {theirs.base}; "
            "adapters of different bases cannot be combined"
        )
    if adapter.starts_off_base and ours is not None and ours.quant.kind != "none":
        raise AdapterError(
            f"{adapter.folder} was initialised from a part of a quantised base; "
            "such adapters cannot be combined"
        )
