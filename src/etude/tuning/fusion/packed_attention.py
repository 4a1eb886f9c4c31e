"""Attention over packed rows: several samples end to end, each attending to itself only.

A packed row holds segments of lengths n₁ … n_k. Attention inside each segment costs
Σ nᵢ² instead of (Σ nᵢ)², needs no mask, and cannot leak, because a segment's queries are multiplied
with its own keys only. The function is registered with transformers' attention interface under its
own name, and the segment lengths are passed as a keyword argument through the model's forward
pass. A decoder's layers attend causally, an encoder's in both directions, as each says itself.

Positions of a batch count from 0 in each segment; models of RoBERTa's family count from the padding
token's id + 1, to which `packed_rows` moves them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from etude.core.errors import ModelError

PACKED = "etude_packed"


_HARMLESS = ("position_ids", "cache_position")
"""Tensors that models pass on to their attention beside queries, keys and values, already used."""


@dataclass(frozen=True)
class MaskLimit:
    """Stands for a mask that lets a query see `size` positions at most; see `watched_attention`."""

    size: int


@dataclass
class Seen:
    """What `packed_attention` has been given; see `watched_attention`."""

    unused: set[str] = field(default_factory=set[str])
    """Inputs of the model that it does not compute with."""

    layers: set[int] = field(default_factory=set[int])
    """Identities of the attention layers that call it with the lengths of segments."""


_watching: ContextVar[Seen | None] = ContextVar("watching", default=None)
"""Where `watched_attention` collects it, in its own thread."""


def _segment(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None,
    dropout: float,
    window: int | None,
    causal: bool,
    cap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attend within one segment; (1, heads, n, d) in and out."""
    length = query.shape[2]
    mask = None
    if window is not None and length > window:
        position = torch.arange(length, device=query.device)
        behind = position[:, None] - position[None, :]
        mask = (behind >= 0) & (behind < window)
    if cap is not None or sinks is not None:
        return _by_scores(query, key, value, mask, scale, dropout, causal, cap, sinks)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None and causal,
        dropout_p=dropout,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _by_scores(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    dropout: float,
    causal: bool,
    cap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attend within one segment by its scores, for what PyTorch's product does not compute.

    With scores s = scale · q kᵀ, a soft cap makes them cap · tanh(s / cap) (Gemma 2: Riviere et
    al. 2024, "Gemma 2", section 2), and a sink is one more key of score `sinks[head]` and no value
    (GPT-OSS), which takes a share of the softmax.
    """
    heads, length, width = query.shape[1:]
    repeats = heads // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * (width**-0.5 if scale is None else scale)
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device)
        mask = mask.tril() if causal else mask
    scores = scores.masked_fill(~mask, -math.inf)
    if sinks is not None:
        extra = sinks.to(scores.dtype).reshape(1, heads, 1, 1).expand(1, heads, length, 1)
        scores = torch.cat([scores, extra], dim=3)
    weights = scores.softmax(dim=3)[..., :length]
    return F.dropout(weights, dropout, training=dropout > 0) @ value


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | MaskLimit | None,
    *,
    segment_lengths: list[int] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend inside each segment of a packed row (transformers' attention signature).

    Args:
        module: the calling attention layer.
        query: (1, heads, T, d).
        key: (1, key heads, T, d).
        value: (1, key heads, T, d).
        attention_mask: None, for segments need no mask; a `MaskLimit` in the probe.
        segment_lengths: lengths that sum to T; one segment of length T if None.
        scaling: factor on the scores; 1/√d if None.
        dropout: dropout on the attention weights.
        sliding_window: positions a query may look back, itself included.
        is_causal: whether a query sees no key after it; None: as `module` says.
        softcap: bound of the scores; see `_by_scores`.
        s_aux: (heads,) scores of each head's sink.
        options: further arguments of the model; `packing_probe` finds those that matter.

    Returns:
        (1, T, heads, d) in the dtype of `query`, and None for the weights.

    Raises:
        ModelError: the model's attention has a window in both directions.
    """
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if sliding_window is not None and not causal:
        raise ModelError(
            "packed rows do not support windows in both directions; set data.packing: false"
        )
    if (seen := _watching.get()) is not None:
        if segment_lengths is not None:
            seen.layers.add(id(module))
        _note_unused(seen.unused, attention_mask, sliding_window, options)
    dtype = query.dtype
    with torch.autocast(query.device.type, enabled=False):
        # On CPU, float32 is more accurate and, including casts, faster for typical sample
        # lengths: 1.2 to 2.5 times up to 256 tokens with the backward pass, equal at 512, a
        # fifth slower from 768 (benchmarks/attention_dtype.py, one thread).
        if query.device.type == "cpu" and dtype != torch.float64:
            query, key, value = query.float(), key.float(), value.float()
        lengths = segment_lengths or [query.shape[2]]
        outputs: list[torch.Tensor] = []
        start = 0
        for length in lengths:
            q, k, v = (tensor.narrow(2, start, length) for tensor in (query, key, value))
            outputs.append(
                _segment(q, k, v, scaling, dropout, sliding_window, causal, softcap, s_aux)
            )
            start += length
        out = torch.cat(outputs, dim=2)
    return out.transpose(1, 2).to(dtype), None


AttentionInterface.register(PACKED, packed_attention)  # pyright: ignore[reportUnknownMemberType]


@contextmanager
def watched_attention() -> Generator[Seen]:
    """Context manager: collect what `packed_attention` is given, and by which layers.

    transformers makes no mask for an attention that registers none, as this one; registering one
    for the moment shows what the model asks for, and which of its layers use it.
    """

    def stand_in(*_: Any, local_size: int | None = None, **__: Any) -> MaskLimit | None:
        return None if local_size is None else MaskLimit(int(local_size))

    interface: Any = AttentionMaskInterface
    known = cast("dict[str, Callable[..., Any]]", interface._global_mapping)
    known[PACKED] = stand_in
    seen = Seen()
    token = _watching.set(seen)
    try:
        yield seen
    finally:
        known.pop(PACKED, None)
        _watching.reset(token)


def _note_unused(
    found: set[str],
    mask: torch.Tensor | MaskLimit | None,
    window: int | None,
    options: Mapping[str, Any],
) -> None:
    if isinstance(mask, torch.Tensor):
        found.add("a mask of the model's own")
    elif mask is not None and mask.size != window:
        found.add(f"a mask of {mask.size} positions")
    found.update(
        name
        for name, value in options.items()
        if isinstance(value, torch.Tensor) and name not in _HARMLESS
    )


@contextmanager
def packed_rows(model: Any) -> Generator[None]:
    """Context manager: make `model` attend per segment, and count positions as the model does."""
    before: str = model.config._attn_implementation
    if before == PACKED:
        yield
        return
    model.set_attn_implementation(PACKED)
    shift = _shifted_positions(model)
    try:
        yield
    finally:
        if shift is not None:
            shift.remove()
        model.set_attn_implementation(before)


def _shifted_positions(model: Any) -> RemovableHandle | None:
    """Let the embeddings of RoBERTa's family count from the padding token's id + 1."""
    embeddings = getattr(model.base_model, "embeddings", None)
    if not hasattr(embeddings, "create_position_ids_from_input_ids"):
        return None
    first = int(cast("Any", embeddings).padding_idx) + 1

    def shift(
        module: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        del module
        positions = given.get("position_ids")
        return args, given if positions is None else {**given, "position_ids": positions + first}

    return cast("torch.nn.Module", embeddings).register_forward_pre_hook(shift, with_kwargs=True)
