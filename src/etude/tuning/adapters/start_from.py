"""Going on from a saved adapter: its weights are where training begins (`adapter.start_from`).

The recipe still says what is trained. What it says of kind, modules, ranks and scales must be what
the saved adapter has: anything else would silently train another adapter than the recipe's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from etude.core.errors import AdapterError
from etude.tuning.adapters.compatibility import with_experts
from etude.tuning.adapters.experts import find_parameters
from etude.tuning.adapters.inject import Original, settings_of, targets_of
from etude.tuning.adapters.kinds.lora import LoRA
from etude.tuning.adapters.modules_to_save import find_saved, tied_to
from etude.tuning.adapters.multi_adapter import DEFAULT, AdaptedModule, adapters_named
from etude.tuning.adapters.peft_config import peft_initialisation
from etude.tuning.adapters.read import SavedAdapter, read_adapter
from etude.tuning.adapters.save import load_adapter
from etude.tuning.adapters.saved_parts import listed
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.models.load import ModelOrigin


def start_from(
    model: nn.Module,
    spec: AdapterSpec,
    folder: str | Path,
    origin: ModelOrigin,
    *,
    original: Original | None = None,
    tokens: Sequence[int] = (),
) -> list[AdaptedModule]:
    """Load a saved adapter to go on training it; everything else is frozen.

    Args:
        model: the base, without adapters.
        spec: the recipe's `adapter` section, which the saved adapter must have been trained by.
        folder: the adapter's, written by Etude or PEFT.
        origin: where the base is from.
        original: returns weights before quantisation, for an adapter that was initialised with a
            part of a quantised base.
        tokens: numbers of added tokens, whose rows are trained.

    Returns:
        The adapted modules, in the model's order.

    Raises:
        AdapterError: the adapter is for another base, or of another kind, rank or scale than the
            recipe's, or on other modules; the message names both.
    """
    saved = with_experts(read_adapter(folder), model)
    _refuse_other_recipe(saved, spec, model)
    _refuse_other_tokens(saved, tokens)
    found = load_adapter(
        model, folder, origin=origin, original=original, trainable=True, name=DEFAULT
    )
    for adapter in adapters_named(model).values():
        adapter.dropout = spec.dropout
        if isinstance(adapter, LoRA) and spec.factors.when == "training":
            adapter.rounding = spec.factors
    return found


def _refuse_other_tokens(saved: SavedAdapter, tokens: Sequence[int]) -> None:
    theirs = {number for ids in saved.options.tokens.values() for number in ids}
    if saved.tokens and theirs != set(tokens):
        raise AdapterError(
            f"adapter.start_from: {saved.folder} has trained the rows of {len(theirs)} tokens, "
            f"{min(theirs)} to {max(theirs)}, the recipe adds "
            f"{f'{min(tokens)} to {max(tokens)}' if tokens else 'none'}; name the same tokens in "
            "the same order (model.add_tokens)"
        )
    if tokens and not saved.tokens and not saved.modules:
        raise AdapterError(
            f"adapter.start_from: {saved.folder} has no rows of added tokens; leave out "
            "model.add_tokens, or begin anew"
        )


def _refuse_other_recipe(saved: SavedAdapter, spec: AdapterSpec, model: nn.Module) -> None:
    if spec.kind == "adalora" or saved.options.kind == "adalora":
        raise AdapterError(
            f"adapter.start_from: {saved.folder} was saved as the LoRA that an AdaLoRA comes to, "
            "without its singular values; go on with adapter.kind: lora"
            if saved.options.kind != "adalora"
            else f"adapter.start_from: {saved.folder} is an AdaLoRA of PEFT's, which ends as a LoRA"
        )
    if saved.kind != spec.kind:
        raise _differs(saved, "kind", saved.kind, spec.kind)
    begun = peft_initialisation(saved.options.config)
    if saved.provenance is not None and saved.starts_off_base:
        begun = saved.provenance.init
    if spec.init != (begun or "default"):
        raise _differs(saved, "init", begun or "default", spec.init)
    whole = find_saved(model, spec.modules_to_save)
    tied = {other for path in whole for other in tied_to(model, path)}
    if not set(whole) <= set(saved.modules) <= {*whole, *tied}:
        theirs = listed(sorted(saved.modules)) or "none"
        raise _differs(saved, "modules_to_save", theirs, listed(whole) or "none")
    paths = [path for path in targets_of(model, spec) if path not in whole]
    paths += find_parameters(model, spec.target_parameters, spec.layers)
    if set(paths) != set(saved.parts):
        missing = [path for path in paths if path not in saved.parts]
        further = [path for path in saved.parts if path not in paths]
        raise AdapterError(
            f"adapter.start_from: {saved.folder} is on other modules than the recipe's: "
            + "; ".join(
                f"{what} {listed(names)}"
                for what, names in (("it lacks", missing), ("the recipe lacks", further))
                if names
            )
            + " (adapter.target_modules, adapter.target_parameters, adapter.layers)"
        )
    if saved.options.bias != spec.bias:
        raise _differs(saved, "bias", saved.options.bias, spec.bias)
    if spec.kind == "ia3":
        return
    rslora = bool(saved.options.config.get("use_rslora"))
    for path, (rank, alpha) in settings_of(paths, spec).items():
        part = saved.parts[path]
        # An initialisation that took a part of the base is saved with it, as further ranks.
        own = part.rank // 2 if saved.starts_off_base else part.rank
        if own != rank:
            raise _differs(saved, "rank", f"{own} in {path}", rank)
        if spec.kind == "vera":
            continue
        scale = alpha / (rank**0.5 if spec.rslora else rank)
        if abs(part.scaling - scale) > 1e-6 * scale:
            said = "alpha / √rank" if rslora else "alpha / rank"
            raise _differs(saved, "alpha", f"{said} = {part.scaling:g} in {path}", f"{scale:g}")


def _differs(saved: SavedAdapter, key: str, theirs: object, ours: object) -> AdapterError:
    return AdapterError(
        f"adapter.start_from: {saved.folder} has {key} {theirs}, the recipe {ours}; set "
        f"adapter.{key} to what it has, or begin anew"
    )
