"""The builder of every transformers model, and the places that weights go to.

A model to be loaded is built from its configuration with every parameter on PyTorch's meta
device: shapes and no storage. Buffers are computed for real, so that rotary frequencies and the
like, which no checkpoint holds, are right from the start.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers.pytorch_utils import Conv1D

from etude.core.errors import ModelError, innermost_reason
from etude.tuning.models.heads import CAUSAL_LM, Head, head_modules
from etude.tuning.models.linear_layers import as_linear, is_product


@dataclass(frozen=True)
class Place:
    """A parameter or buffer of the model, and the checkpoint's tensor that belongs there."""

    names: tuple[str, ...]
    """Its names in the model: several where weights are tied."""

    shape: tuple[int, ...]
    sources: tuple[str, ...]
    """Names in the checkpoint: several where a tied weight was stored twice."""


def build_model(config: Any, dtype: torch.dtype, origin: str, head: Head = CAUSAL_LM) -> Any:
    """Return the model of `config` with `head`, its parameters as the current context makes them.

    Within a `FakeTensorMode` they are fake tensors; `build_meta_model` has them on the meta device.

    Args:
        config: the transformers configuration; it is left as it is.
        dtype: of the parameters.
        origin: what to call the model in messages.
        head: a new one has its classes in the model's configuration already; see `Head.configure`.

    Raises:
        ModelError: the configuration is of a model that cannot have this head, or transformers
            cannot build it.
    """
    head.require_supported(config, origin)
    try:
        return head.auto_class.from_config(
            # transformers writes dtype and attention into the configuration that it is given.
            copy.deepcopy(config),
            dtype=dtype,
            # PyTorch's product where the model supports it, else the model's own attention.
            attn_implementation=None,
            trust_remote_code=False,
        )
    except Exception as error:
        # A model's own code raises whatever its configuration leads to.
        raise ModelError(
            f"{origin}: transformers cannot build this model: {innermost_reason(error)}"
        ) from error


def build_meta_model(config: Any, dtype: torch.dtype, origin: str, head: Head = CAUSAL_LM) -> Any:
    """Return what `build_model` does, with all parameters on the meta device.

    Raises:
        ModelError: as `build_model`.
    """
    # torch's annotation of the hook forgets that it may return a parameter to take instead.
    replace: Any = _on_meta
    hook = register_module_parameter_registration_hook(replace)
    try:
        return build_model(config, dtype, origin, head)
    finally:
        hook.remove()


def _on_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
    """Replace a parameter at its registration by one without storage."""
    del module, name
    if parameter.is_meta:
        return None
    return nn.Parameter(parameter.detach().to("meta"), requires_grad=False)


def match_tensors(
    model: Any, tensors: Mapping[str, tuple[int, ...]], origin: str, head: Head = CAUSAL_LM
) -> list[Place]:
    """Find for every parameter its tensor in the checkpoint; buffers take one if there is one.

    Args:
        model: what `build_meta_model` returned.
        tensors: the checkpoint's names and shapes.
        origin: what to call the checkpoint in messages.
        head: a new one has places without sources, and the checkpoint's own head none.

    Raises:
        ModelError: naming the tensors that are missing, unexpected or of another shape.
    """
    tied: dict[int, list[str]] = defaultdict(list)
    shapes: dict[int, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tied[id(parameter)].append(name)
        shapes[id(parameter)] = tuple(parameter.shape)
    # Checkpoints of a model's trunk lack the name of the trunk: `h.0.` for `transformer.h.0.`.
    trunk = f"{model.base_model_prefix}."

    def find(names: Iterable[str]) -> tuple[str, ...]:
        candidates = [c for name in names for c in (name, name.removeprefix(trunk))]
        return tuple(dict.fromkeys(c for c in candidates if c in tensors))

    places = [Place(tuple(names), shapes[key], find(names)) for key, names in tied.items()]
    new = tuple(f"{name}." for name in head_modules(model)) if head.is_new else ()
    missing = [
        place.names[0]
        for place in places
        if not place.sources and not (new and place.names[0].startswith(new))
    ]
    if missing:
        raise ModelError(f"{origin} lacks {_some(missing)}")
    parameters = {name for place in places for name in place.names}
    for name, value in model.state_dict().items():
        if name not in parameters and (found := find([name])):
            places.append(Place((name,), tuple(value.shape), found))
    used = {source for place in places for source in place.sources}
    harmless: list[str] = [
        r"rotary_emb\.inv_freq$",
        *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []),
    ]
    # Buffers that a model computes itself (position ids) were saved by older versions.
    computed = {n for name, _ in model.named_buffers() for n in (name, name.removeprefix(trunk))}
    # The head that the checkpoint has in the place of a new one is not wanted.
    named_by_trunk = any(name.startswith(trunk) for name in tensors)
    unexpected = [
        name
        for name in tensors
        if name not in used
        and name not in computed
        and not any(re.search(pattern, name) for pattern in harmless)
        and not (head.is_new and named_by_trunk and not name.startswith(trunk))
        and not (head.is_new and _is_left_out(model, name.removeprefix(trunk)))
    ]
    if unexpected:
        raise ModelError(
            f"{origin} has {_some(unexpected)}, which {type(model).__name__} has no place for"
        )
    if head.sees_images:
        # A model of images comes with a head of the classes that it was trained on.
        places = [_without_other_head(place, tensors, new) for place in places]
    for place in places:
        for source in place.sources:
            if tensors[source] != place.shape:
                raise ModelError(
                    f"{origin}: {source} has shape {tensors[source]}, its config.json or metadata "
                    f"says {place.shape}"
                )
    return places


def _without_other_head(
    place: Place, tensors: Mapping[str, tuple[int, ...]], new: tuple[str, ...]
) -> Place:
    """Return a place of the new head without the tensor of a head with other classes."""
    differs = any(tensors[source] != place.shape for source in place.sources)
    if differs and new and place.names[0].startswith(new):
        return Place(place.names, place.shape, ())
    return place


def _is_left_out(model: Any, name: str) -> bool:
    """Return whether the trunk does without the module of a tensor: taggers have no pooler."""
    trunk = getattr(model, model.base_model_prefix, None)
    module = name.partition(".")[0]
    return hasattr(trunk, module) and getattr(trunk, module) is None


def quantizable_linears(model: Any) -> dict[str, nn.Linear]:
    """Return every Linear but those of the output head, by its path in the model.

    The head stays as it is: it may be tied to the embedding, its errors reach the loss directly,
    and a new one is trained. A `Conv1D`, GPT-2's, is returned as the Linear that it is.
    """
    head = model.get_output_embeddings()
    outside = tuple(head_modules(model))
    found: dict[str, nn.Linear] = {}
    for path, module in model.named_modules():
        if module is head or path.partition(".")[0] in outside:
            continue
        if isinstance(module, Conv1D):
            found[path] = as_linear(module)
        elif isinstance(module, nn.Linear) and is_product(module):
            found[path] = module
    return found


def put(model: nn.Module, names: Iterable[str], value: Tensor) -> None:
    """Make `value` the frozen parameter, or the buffer, of all these names."""
    parameter = nn.Parameter(value, requires_grad=False)
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if leaf in dict(module.named_buffers(recurse=False)):
            setattr(module, leaf, value)
        else:
            module.register_parameter(leaf, parameter)


def _some(names: list[str]) -> str:
    """Write out the first names and count the others."""
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{'tensor' if len(names) == 1 else 'tensors'} {shown}{more}"
