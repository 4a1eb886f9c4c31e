"""Whether a saved adapter fits a model, and which of the model's rows it replaces.

Refused is an adapter for other weights or shapes. PEFT's rules say which modules its options name:
`target_modules` and `exclude_modules` by a regular expression or endings, restricted to
`layers_to_transform`; `modules_to_save` by the letters that a path ends in.

PEFT trains a copy of each module in `modules_to_save`, also where the base ties two of them. They
are one weight here only where the folder has the same numbers for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.core.errors import AdapterError
from etude.tuning.adapters import bases, registry
from etude.tuning.adapters.experts import find_parameters, open_experts, peft_paths
from etude.tuning.adapters.modules_to_save import tied_to
from etude.tuning.adapters.peft_config import peft_initialisation, peft_matches
from etude.tuning.adapters.read import SavedAdapter
from etude.tuning.adapters.saved_parts import CONFIG, WEIGHTS, SavedPart, listed
from etude.tuning.adapters.targets import (
    adaptable_modules,
    layer_number,
    linear_modules,
    means_experts_to_peft,
    name_matches,
    named_modules,
    with_bias,
)
from etude.tuning.models.load import ModelOrigin
from etude.tuning.quant.linear import QuantLinear

LinearOnly = nn.Linear | QuantLinear
"""Layers that store W as (out, in); GPT-2's Conv1D stores its transpose."""


@dataclass(frozen=True)
class SavedRows:
    """Trained rows of one weight."""

    ids: list[int]
    values: Tensor
    """(rows, width) float32."""
    tied: bool
    """Whether the modules that share the weight have the same rows."""


def trained_rows(saved: SavedAdapter, model: Any) -> dict[str, SavedRows]:
    """Return the rows that the adapter trained, by module.

    As for PEFT, a module that is tied to the input embedding has the embedding's rows, unless it
    has rows of its own.

    Raises:
        AdapterError: the rows are not those of one module of this model.
    """
    stated = saved.options.tokens
    if stated and not saved.tokens:
        raise AdapterError(f"{saved.folder}: trainable_token_indices are not in {WEIGHTS}")
    found: dict[str, SavedRows] = {}
    embedding = model.get_input_embeddings() if saved.tokens else None
    modules = dict(named_modules(model))
    for path, rows in saved.tokens.items():
        module = modules.get(path)
        names = [
            name for name in stated if (name_matches(path, name) if name else module is embedding)
        ]
        if not names and any(
            other != path and torch.equal(rows, values) for other, values in saved.tokens.items()
        ):
            continue  # PEFT stores those of a tied module as well where the matrix was resized
        weight: Any = getattr(module, "weight", None)
        indices = stated[names[0]] if names else []
        if not isinstance(weight, Tensor) or rows.shape != (len(indices), weight.shape[1]):
            raise AdapterError(
                f"{saved.folder}: the trained rows of {path} do not fit its weight here, or "
                f"trainable_token_indices in {CONFIG}"
            )
        if max(indices) >= len(weight):
            raise AdapterError(
                f"{saved.folder}: the trained rows of {path} do not fit its weight here, which has "
                f"{len(weight)} of them, and the last trained one is {max(indices)}: name the "
                "tokens that were added by model.add_tokens"
            )
        found[path] = SavedRows(indices, rows, tied=module is embedding)
    trained = sorted({number for one in found.values() for number in one.ids})
    tied = {other for path, one in found.items() if one.tied for other in tied_to(model, path)}
    for path, weight in saved.embeddings.items():
        # A matrix that was resized and not trained has new rows that its base was given by chance.
        known = trained and path in modules and trained[-1] < len(weight)
        if known and path not in found and path not in tied:
            found[path] = SavedRows(trained, weight[trained].float(), tied=False)
    return found


def with_experts(saved: SavedAdapter, model: nn.Module) -> SavedAdapter:
    """Return the adapter with the factors of experts' weights among its parts.

    The experts' modules of the model are opened for them (`experts.open_experts`).

    Raises:
        AdapterError: the model has no such experts, or others.
        NoTargetMatchedError: no weight is called so.
    """
    if not saved.stacked:
        return saved
    options = saved.options
    names = [name for name in options.parameters if not name.endswith(".weight")]
    found = find_parameters(model, names, [])
    wrappers = peft_paths(found)
    if set(wrappers.values()) != set(saved.stacked):
        other = sorted(set(wrappers.values()) ^ set(saved.stacked))
        raise AdapterError(
            f"{saved.folder} is for another model: its weights of experts are not this one's "
            f"({listed(other)})"
        )
    open_experts(model, found)
    parts = dict(saved.parts)
    for path, wrapper in wrappers.items():
        tensors, rank = saved.stacked[wrapper], options.rank_of(path)
        experts = bases.experts(adaptable_modules(model)[path])
        A, B = tensors["lora_A"], tensors["lora_B"]
        if A.dim() != 2 or B.dim() != 2 or len(A) != rank * experts or B.shape[1] != len(A):
            raise AdapterError(
                f"{saved.folder} is for another model: factors {tuple(A.shape)} and "
                f"{tuple(B.shape)} of {path} are not of rank {rank} for {experts} experts"
            )
        alpha = options.alpha_of(path)
        divisor = math.sqrt(rank) if options.config.get("use_rslora") else rank
        parts[path] = SavedPart(tensors, rank, alpha, alpha / divisor)
    return replace(saved, parts=parts)


def are_tied(
    modules: dict[str, dict[str, Tensor]], saved: SavedAdapter, one: str, two: str
) -> bool:
    """Return whether the copies of two modules whose originals share a weight are one.

    Args:
        modules: those of the adapter that are trained whole.
        saved: the adapter.
        one: path of a module in `modules`.
        two: path of another, in `modules` or not.
    """
    if two not in modules:
        return bool(saved.options.config.get("ensure_weight_tying"))
    here, there = modules[one].get("weight"), modules[two].get("weight")
    return here is not None and there is not None and torch.equal(here, there)


def refuse_other_base(saved: SavedAdapter, origin: ModelOrigin) -> None:
    """Refuse an adapter that was trained on other weights.

    Raises:
        AdapterError: the fingerprints differ.
    """
    trained_on = saved.provenance
    if trained_on is not None and trained_on.fingerprint != origin.fingerprint:
        raise AdapterError(
            f"{saved.folder} was trained on {trained_on.base} (fingerprint "
            f"{trained_on.fingerprint[:12]}), not on these weights of {origin.name} "
            f"({origin.fingerprint[:12]}); load that model, or force it if they are equal"
        )


def refuse_other_shapes(saved: SavedAdapter, model: nn.Module) -> None:
    """Refuse an adapter that does not fit the model.

    Raises:
        AdapterError: a module is missing, or of another shape.
    """
    found = adaptable_modules(model)
    unknown = [name for name in saved.parts if name not in found]
    if unknown:
        raise AdapterError(
            f"{saved.folder} is for another model: this one has no Linear {listed(unknown)}"
        )
    own = registry.kind(saved.options.kind)
    for name, part in saved.parts.items():
        bases.refuse_unfit(name, found[name])
        features, out = bases.sizes(found[name])
        rows, columns = own.shape(name, part, saved.options, found[name])
        if (rows, columns) != (out, features):
            raise AdapterError(
                f"{saved.folder} is for another model: its {name} is {rows} × {columns}, "
                f"this model's {out} × {features}"
            )
    # A head beside GPT-2's transposed layers is an ordinary Linear, for PEFT as well.
    if saved.options.transposed and all(
        isinstance(found[n], LinearOnly) and not bases.is_transposed(found[n]) for n in saved.parts
    ):
        name = next(iter(saved.parts))
        raise AdapterError(
            f"{saved.folder}: fan_in_fan_out is set, but {name} stores its weight as (out, in)"
        )
    _refuse_other_modules(saved, model)
    options = saved.options
    linear = linear_modules(model)
    targets = {
        name
        for name in linear
        if options.is_parameter(name)
        or (
            peft_matches(name, options.targets)
            and not (own.peft_type == "LORA" and means_experts_to_peft(model, name))
        )
    }
    if options.layers is not None and not isinstance(options.targets, str):
        targets = {n for n in targets if layer_number(n, options.layer_lists) in options.layers}
    targets -= {name for name in targets if peft_matches(name, options.excluded)}
    targets -= {name for name in targets if name in saved.modules or name in saved.tokens}
    missing = [name for name in linear if name in targets and name not in saved.parts]
    # `all-linear` is not a name: PEFT writes the modules found instead, older versions did not.
    # An AdaLoRA may have pruned every rank of a module.
    if missing and options.targets != "all-linear" and not own.may_leave_out:
        raise AdapterError(f"{saved.folder}: {CONFIG} targets {listed(missing)}, not in {WEIGHTS}")


def _refuse_other_modules(saved: SavedAdapter, model: nn.Module) -> None:
    shapes = {
        # Of a module that another adapter trains, those of the original.
        name.replace(".base.", "."): tuple(p.shape)
        for name, p in cast("Any", model).named_parameters(remove_duplicate=False)
    }
    for path, tensors in saved.modules.items():
        for part, value in tensors.items():
            if shapes.get(f"{path}.{part}") != tuple(value.shape):
                raise AdapterError(
                    f"{saved.folder} is for another model: {path}.{part} is "
                    f"{tuple(value.shape)} there, {shapes.get(f'{path}.{part}')} here"
                )
    found = adaptable_modules(model)
    for path, value in saved.biases.items():
        held = shapes.get(f"{path}.bias")
        if path in found:
            own = bases.bias(found[path])
            held = None if own is None else tuple(own.shape)
        if held != tuple(value.shape):
            raise AdapterError(
                f"{saved.folder} is for another model: {path}.bias is {tuple(value.shape)} there, "
                f"{held} here"
            )
    trained = {"all": None, "lora_only": list(saved.parts)}
    if (stated := saved.options.bias) in trained:
        absent = [
            path
            for path in with_bias(model, trained[stated])
            if path not in saved.biases and path not in saved.modules
        ]
        if absent:
            raise AdapterError(
                f"{saved.folder}: {CONFIG} says bias: {stated}, but those of {listed(absent)} are "
                f"not in {WEIGHTS}"
            )
    new = {number for ids in saved.options.tokens.values() for number in ids}
    for path, weight in saved.embeddings.items():
        here = found.get(path)
        if isinstance(here, nn.Linear) and peft_initialisation(saved.options.config):
            continue  # what PEFT's initialisation left of the base: computed again
        fits = False
        if isinstance(here, nn.Embedding | nn.Linear) and here.weight.shape == weight.shape:
            kept = [number for number in range(len(weight)) if number not in new]
            rows = slice(None) if len(kept) == len(weight) else kept
            own = here.weight[rows].float()
            fits = torch.allclose(own, weight[rows].float(), rtol=2**-8, atol=0)
        if not fits:
            raise AdapterError(
                f"{saved.folder} contains different weights for {path}, trained or resized; "
                "merge them into the base first"
            )
