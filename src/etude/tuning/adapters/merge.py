"""Merging an adapter into its base: one plain model, W + s·B A, for programs without adapters.

An adapter trained on a 4-bit base has also learnt to compensate that base's rounding. It is
therefore merged into the *dequantised* base by default, the weights it was trained on: only the
final rounding to 16 bits is lost, about 3 % of ΔW when ‖ΔW‖ is 5 % of ‖W‖. Merging into the
original weights instead changes the model by the whole quantisation error, 1.8 times ‖ΔW‖ in the
same case.

Merging into 4 bits is not supported: the update of a weight is mostly smaller than the distance
between two levels, so rounding undoes it (error 1.03 times ‖ΔW‖ in the same case).

Layers are merged one at a time and replaced in place; memory use stays near that of the merged
model. Finally the folder is read back, and its logits are compared with those of base and adapter,
and where PEFT is installed and can hold the adapter, with PEFT's (`merge_check`); a merge that does
not reproduce them is discarded.
"""

from __future__ import annotations

import copy
import gc
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError
from etude.core.progress import Progress, SilentProgress
from etude.tuning.adapters import bases
from etude.tuning.adapters.experts import close_experts
from etude.tuning.adapters.layer import AdaptedLayer
from etude.tuning.adapters.low_rank import LowRank
from etude.tuning.adapters.merge_check import MergeCheck, float32_logits, peft_logits, rms
from etude.tuning.adapters.merge_error import LOW_BITS, too_few_bits
from etude.tuning.adapters.modules_to_save import ModuleToSave, saved_modules
from etude.tuning.adapters.multi_adapter import adapted_layers, adapter_disabled, replace_module
from etude.tuning.adapters.read import SavedAdapter, read_adapter
from etude.tuning.adapters.save import load_adapter
from etude.tuning.adapters.saved_tokens import refuse_other_numbers, with_tokens_of
from etude.tuning.adapters.stacked import StackedLinear, by_expert
from etude.tuning.adapters.targets import linear_modules
from etude.tuning.adapters.trained_rows import TrainedRows
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.heads import CAUSAL_LM, Head, head_modules
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.models.output import (
    move,
    no_bars,
    refuse_base_folder,
    refuse_existing,
    write_aside,
)
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.quant.linear import QuantLinear

Into = Literal["dequantized", "original"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_SAMPLE = (
    "def mean(values):\n    total = sum(values)\n    return total / len(values)\n\n"
    "The sun had set when they reached the harbour, and 17 boats lay in the bay. Who was the first "
    "to see them? Nobody could say; the old man at the gate had counted them twice."
)


@dataclass(frozen=True)
class MergeReport:
    """Summary of a merge and its agreement with base and adapter."""

    folder: Path
    modules: int
    """Number of merged layers."""
    base: Into
    dtype: torch.dtype
    largest_difference: float
    """Largest logit difference, merged against unmerged, on the sample text."""
    difference: float
    """Root mean square of the logit differences."""
    effect: float
    """Root mean square change of the logits by the adapter."""
    peft_difference: float | None = None
    """Root mean square difference from PEFT's logits for the same base and adapter; None: PEFT is
    not installed, cannot hold them, or would not fit into memory."""


def merge_adapter(
    spec: ModelSpec,
    adapter: str | Path,
    output: str | Path,
    *,
    base: Into | None = None,
    dtype: str = "auto",
    overwrite: bool = False,
    head: Head = CAUSAL_LM,
    progress: Progress | None = None,
) -> MergeReport:
    """Write the base with its adapter merged, as a folder for transformers.

    Args:
        spec: the base model; its dtype and device are ignored: merging runs on the CPU.
        adapter: folder of the adapter.
        output: folder to write, atomically.
        base: weights to merge into. None: those the adapter was trained on.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` (this machine's compute dtype).
        overwrite: replace an existing model folder.
        head: of the adapter's task; a new one is part of the adapter.
        progress: reports every stage.

    Raises:
        AdapterError: the adapter is damaged or for another model, a 4-bit dtype is requested, or
            the merged model does not agree with base and adapter.
        RunError: the output exists already, or cannot be written.
    """
    output = Path(output)
    _refuse_unknown(dtype)
    refuse_existing(output, overwrite)
    saved = read_adapter(adapter)
    base = base or _trained_on(saved)
    quant = _base_precision(saved, base)
    # float16 is only an output format: computation is in float32.
    computed = dtype if dtype in ("auto", "bfloat16") else "float32"
    low_bits = LOW_BITS.get(dtype)
    # On the CPU: the result is a file, and a GPU would only copy the weights.
    here = with_tokens_of(saved, spec).model_copy(update={"dtype": computed, "device": "cpu"})
    loaded = load_model(here, quant, progress, head)
    refuse_other_numbers(saved.folder, loaded.added)
    refuse_base_folder(output, loaded.origin)
    with UnquantizedWeights(loaded.files) as original:
        load_adapter(loaded.model, adapter, origin=loaded.origin, original=original)
    _require_head(loaded, saved)
    if low_bits is not None:
        raise too_few_bits(loaded.model, dtype, low_bits, progress or SilentProgress())
    target = loaded.dtype if dtype == "auto" else _DTYPES[dtype]

    ids = sample_ids(loaded)
    with adapter_disabled(loaded.model):
        before = float32_logits(loaded.model, ids)
    unmerged = float32_logits(loaded.model, ids)
    modules = len(adapted_layers(loaded.model))
    progress = progress or SilentProgress()
    merge_layers(loaded.model, target, progress)

    aside = write_aside(output, partial(_save, loaded))
    try:
        origin = loaded.origin
        del loaded
        gc.collect()
        read_back = _read_back(aside, target, head)
        merged = float32_logits(read_back, ids)
        report = MergeReport(
            output,
            modules,
            base,
            target,
            float((merged - unmerged).abs().max()),
            rms(merged - unmerged),
            rms(unmerged - before),
        )
        check = MergeCheck(target, rms(unmerged), partial(_perturbed_logits, read_back, ids))
        check.refuse_disagreement(report.difference, report.effect, origin.name)
        del read_back
        theirs = peft_logits(origin, saved, base, ids, head)
        if theirs is not None:
            difference = rms(merged - theirs)
            check.refuse_other_reading(difference)
            report = replace(report, peft_difference=difference)
        move(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return report


@torch.no_grad()
def merge_layers(model: nn.Module, dtype: torch.dtype, progress: Progress | None = None) -> None:
    """Turn every adapted or quantised layer of `model` into a plain Linear, in place.

    W + s·B A is computed in float32 and rounded once, to `dtype`. An output head that shares its
    weight with the embedding is untied if it was adapted, and stays tied if not.
    """
    progress = progress or SilentProgress()
    layers: dict[str, AdaptedLayer | ModuleToSave | QuantLinear] = {
        **adapted_layers(model),
        **saved_modules(model),
    }
    inside = tuple(f"{name}." for name in layers)
    for name, module in linear_modules(model).items():
        if isinstance(module, QuantLinear) and name not in layers and not name.startswith(inside):
            layers[name] = module
    untied = _tied_apart(model)
    progress.start("Merging", len(layers), "layers")
    for name, layer in layers.items():
        replace_module(model, name, _dense(layer, dtype))
        progress.advance(1)
    progress.finish()
    close_experts(model)
    if untied:
        cast("Any", model).config.tie_word_embeddings = False
    model.to(dtype)


def _tied_apart(model: Any) -> bool:
    """Return whether embedding and head share a weight that only one of them adapts.

    A copy that both have is shared like the weight, so it does not untie them.
    """
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if not getattr(model.config, "tie_word_embeddings", False):
        return False
    if any(isinstance(end, AdaptedLayer) for end in ends):
        return True
    copies = [end.copies if isinstance(end, ModuleToSave) else None for end in ends]
    return copies[0] is not copies[1]


def sample_ids(loaded: LoadedModel) -> Tensor:
    """Return a short text as token ids, (1, tokens), with some of the tokens that were added."""
    encoded: Any = loaded.tokenizer(_SAMPLE, return_tensors="pt")
    new = torch.tensor([loaded.added.ids[:8]], dtype=torch.long)
    return torch.cat([encoded.input_ids, new], 1)


@torch.no_grad()
def _dense(layer: AdaptedLayer | ModuleToSave | QuantLinear, dtype: torch.dtype) -> nn.Module:
    """Return a plain layer equivalent to `layer`, in `dtype`."""
    if isinstance(layer, ModuleToSave):
        return _dense_saved(layer, dtype)
    base = layer.base if isinstance(layer, AdaptedLayer) else layer
    if isinstance(base, StackedLinear):
        return _dense_experts(cast("AdaptedLayer", layer), base, dtype)
    matrix = bases.read_matrix(base)
    bias = bases.bias(base)
    if isinstance(layer, AdaptedLayer):
        layer.add_delta(matrix)
        change = layer.bias_delta()
        if bias is not None and change is not None:
            bias = bias.float() + change
    if not isinstance(base, QuantLinear):
        # A new layer: the weight may be shared with another module.
        merged = copy.copy(base)
        vars(merged)["_parameters"] = dict(vars(base)["_parameters"])
        weight = bases.as_stored(base, matrix).to(dtype).contiguous()
        merged.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            merged.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
        return merged
    linear = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    linear.weight = nn.Parameter(matrix.to(dtype), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    return linear


def _dense_experts(layer: AdaptedLayer, base: StackedLinear, dtype: torch.dtype) -> StackedLinear:
    """Return experts' weights with their changes, one expert at a time in float32."""
    whole = torch.empty_like(base.weight, dtype=dtype)
    merged = StackedLinear(nn.Parameter(whole, requires_grad=False), transposed=base.transposed)
    changes: list[tuple[Tensor, Tensor, float]] = []
    for adapter in cast("list[LowRank]", layer.chosen()):
        A, B = (factor.float() for factor in adapter.factors())
        changes.append((*by_expert(A, B, base.experts), adapter.scaling))
    for expert in range(base.experts):
        matrix = base.matrices()[expert].float()
        for down, up, scaling in changes:
            matrix = matrix.addmm(up[expert], down[expert], alpha=scaling)
        merged.matrices()[expert].copy_(matrix)
    return merged


def _dense_saved(module: ModuleToSave, dtype: torch.dtype) -> nn.Module:
    """Return the original with the trained copy's weights; tied weights stay tied."""
    for name in module.active:
        if name not in module.copies:
            continue
        own = module.copies[name]
        if isinstance(own, TrainedRows):
            base: Any = module.base
            base.weight = own.merged(base.weight, dtype)
            continue
        twin = own.to(dtype)
        for part, value in twin.named_parameters():
            owner, _, leaf = part.rpartition(".")
            target = module.base.get_submodule(owner)
            if leaf in dict(target.named_parameters(recurse=False)):
                setattr(target, leaf, value.requires_grad_(False))
    return module.base


def _trained_on(saved: SavedAdapter) -> Into:
    quantized = saved.provenance is not None and saved.provenance.quant.kind != "none"
    return "dequantized" if quantized else "original"


def _base_precision(saved: SavedAdapter, base: Into) -> QuantSpec:
    if base == "original":
        return QuantSpec(kind="none")
    if _trained_on(saved) == "original":
        raise AdapterError(
            f"{saved.folder} does not say that it was trained on a quantised base; "
            "merge it into the original (--base original)"
        )
    assert saved.provenance is not None
    return saved.provenance.quant


def _require_head(loaded: LoadedModel, saved: SavedAdapter) -> None:
    """Refuse an adapter without the head of its task, which would be merged with a random one."""
    trained = saved_modules(loaded.model)
    lacking = [name for name in head_modules(loaded.model) if name not in trained]
    if loaded.head.is_new and lacking:
        raise AdapterError(
            f"{saved.folder} lacks the trained head ({', '.join(lacking)}); a merged model would "
            "answer at random"
        )


def _refuse_unknown(dtype: str) -> None:
    if dtype not in ("auto", *_DTYPES, *LOW_BITS):
        raise AdapterError(f"unknown dtype {dtype!r}; known: auto, {', '.join(_DTYPES)}")


def _save(loaded: LoadedModel, folder: Path) -> None:
    with no_bars():
        loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def _read_back(folder: Path, dtype: torch.dtype, head: Head) -> Any:
    auto: Any = head.auto_class
    with no_bars():
        return auto.from_pretrained(folder, dtype=dtype, local_files_only=True)


@torch.no_grad()
def _perturbed_logits(model: Any, ids: Tensor, unit: float) -> Tensor:
    """Return the logits with every weight moved by ± `unit`, relative, as rounding would."""
    generator = torch.Generator().manual_seed(0)
    moved = copy.deepcopy(model).float()
    for parameter in moved.parameters():
        signs = torch.randint(0, 2, parameter.shape, generator=generator, dtype=torch.int8)
        parameter.add_(parameter * (2 * signs - 1), alpha=unit)
    return float32_logits(moved, ids)
