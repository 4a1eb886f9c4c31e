"""A transformers model without weights, and the places that weights go to.

The model is built from its configuration with every parameter on PyTorch's meta device: shapes
and no storage. Buffers are computed for real, so that rotary frequencies and the like, which no
checkpoint holds, are right from the start.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from etude.core.errors import ModelError, innermost_reason


@dataclass(frozen=True)
class Place:
    """A parameter or buffer of the model, and the checkpoint's tensor that belongs there."""

    names: tuple[str, ...]
    """Its names in the model: several where weights are tied."""

    shape: tuple[int, ...]
    sources: tuple[str, ...]
    """Names in the checkpoint: several where a tied weight was stored twice."""


def build_meta_model(config: Any, dtype: torch.dtype, origin: str) -> Any:
    """Return the causal language model of `config`, all parameters on the meta device.

    Raises:
        ModelError: the configuration is of another kind of model.
    """
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    _refuse_other_heads(config, origin)
    # torch's annotation of the hook forgets that it may return a parameter to take instead.
    replace: Any = _on_meta
    hook = register_module_parameter_registration_hook(replace)
    try:
        return auto.from_config(
            config, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
        )
    except (ValueError, ImportError) as error:
        raise ModelError(
            f"{origin}: transformers cannot build this model: {innermost_reason(error)}"
        ) from error
    finally:
        hook.remove()


def _on_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
    """Replace a parameter at its registration by one without storage."""
    del module, name
    if parameter.is_meta:
        return None
    return nn.Parameter(parameter.detach().to("meta"), requires_grad=False)


def _refuse_other_heads(config: Any, origin: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known: Mapping[str, Any] = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    classes: list[str] = config.architectures or [known.get(config.model_type, config.model_type)]
    if not set(classes) & set(known.values()):
        raise ModelError(
            f"{origin} is a {classes[0]}: only causal language models can be loaded at present"
        )


def match_tensors(model: Any, tensors: Mapping[str, tuple[int, ...]], origin: str) -> list[Place]:
    """Find for every parameter its tensor in the checkpoint; buffers take one if there is one.

    Args:
        model: what `build_meta_model` returned.
        tensors: the checkpoint's names and shapes.
        origin: what to call the checkpoint in messages.

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
    missing = [place.names[0] for place in places if not place.sources]
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
    unexpected = [
        name
        for name in tensors
        if name not in used and not any(re.search(pattern, name) for pattern in harmless)
    ]
    if unexpected:
        raise ModelError(
            f"{origin} has {_some(unexpected)}, which {type(model).__name__} has no place for"
        )
    for place in places:
        for source in place.sources:
            if tensors[source] != place.shape:
                raise ModelError(
                    f"{origin}: {source} has shape {tensors[source]}, its config.json or metadata "
                    f"says {place.shape}"
                )
    return places


def quantizable_linears(model: Any) -> dict[str, nn.Linear]:
    """Return every Linear but the output head, by its path in the model.

    The head stays as it is: it may be tied to the embedding, and its errors reach the loss
    directly.
    """
    head = model.get_output_embeddings()
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


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
