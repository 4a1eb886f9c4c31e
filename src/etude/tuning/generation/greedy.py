"""Batched greedy decoding with a key-value cache.

Prompts are processed once, packed end to end, so none is padded. Their keys and values are cached
as (answers, key heads, capacity, width) per layer. A decoding step then takes the newest token of
every unfinished answer: each weight is read once for all of them (`fused.thin_product`), and
attention sees each answer's own keys only. An answer that ends leaves the batch, so the others do
not wait for it.

Models whose layers the fused code supports (`fusion.eligibility`) are decoded this way; all others
use the `generate` method of transformers. Both choose the most probable token each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from etude.tuning.data.packing import pack
from etude.tuning.fusion.decoder_layer import DecoderLayer, Groups, forward_pass, grouped
from etude.tuning.fusion.eligibility import describe_layer, generation_layers
from etude.tuning.fusion.projections import Factors
from etude.tuning.kernels.fused import (
    THIN_ROWS,
    attention,
    cached_attention,
    has_kernels,
    rms_norm,
    thin_product,
)
from etude.tuning.kernels.heads import Heads
from etude.tuning.objectives.cross_entropy import plain_head
from etude.tuning.objectives.output_matrix import OutputMatrix
from etude.tuning.quant.linear import dense_weights

PREFILL_TOKENS = 1024
"""Prompt tokens per forward pass; a longer prompt is processed alone."""

_GREEDY = {
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "sequence_bias": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "num_beams": (None, 1),
    "guidance_scale": (None, 1.0),
}
"""Generation settings that affect greedy decoding, with their neutral values."""


@dataclass(frozen=True)
class _Layer:
    """A layer's weights for decoding, and its key-value cache."""

    computes: DecoderLayer
    groups: Groups
    keys: Tensor
    values: Tensor


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    ends: Sequence[int],
    *,
    max_new_tokens: int,
) -> list[list[int]]:
    """Return the greedy continuation of each prompt, including its end token if generated.

    Args:
        model: a transformers causal language model, in evaluation mode.
        prompts: token ids, at least one per prompt.
        ends: tokens that end an answer.
        max_new_tokens: maximum length of an answer; longer ones are truncated.
    """
    with torch.inference_mode(), dense_weights(model):
        fast = _Generator.of(model, len(prompts), max(map(len, prompts)) + max_new_tokens)
        if fast is None:
            return _by_transformers(model, prompts, ends, max_new_tokens)
        return fast.run(prompts, set(ends), max_new_tokens)


class _Generator:
    def __init__(self, model: Any, layers: list[_Layer], head: OutputMatrix) -> None:
        self.model = model
        self.layers = layers
        self.head = head

    @classmethod
    def of(cls, model: Any, answers: int, capacity: int) -> _Generator | None:
        """Return a generator for a model; None if the fused code does not support it."""
        matrix, layers = plain_head(model), generation_layers(model)
        settings = model.generation_config
        greedy = all(getattr(settings, name, None) in plain for name, plain in _GREEDY.items())
        if matrix is None or layers is None or not greedy or not has_kernels(matrix.weight):
            return None
        head = matrix.weight
        if model.base_model.norm.weight.dtype != head.dtype:
            return None
        cache: Tensor | None = None
        made: list[_Layer] = []
        for number, layer in enumerate(layers):
            described = describe_layer(layer, head.dtype, head.device)
            if isinstance(described, str):
                return None
            heads = described.layer.heads
            shape = answers, heads.key, capacity, heads.width
            if cache is None or cache.shape[2:] != shape:
                # One piece of memory for the layers left, for the reason of `dense_weights`.
                cache = torch.empty((len(layers) - number, 2, *shape), dtype=head.dtype)
            (keys, values), cache = cache[0], cache[1:]
            ready = _prepared(described.layer, described.factors, head.dtype)
            made.append(_Layer(*ready, keys, values))
        return cls(model, made, matrix.to(head.dtype))

    def run(
        self, prompts: Sequence[Sequence[int]], ends: set[int], max_new_tokens: int
    ) -> list[list[int]]:
        """Return the answers."""
        answers: list[list[int]] = [[] for _ in prompts]
        newest = torch.empty(len(prompts), dtype=torch.long)
        for members in pack([len(prompt) for prompt in prompts], PREFILL_TOKENS):
            newest[members] = self._read([prompts[i] for i in members], members)
        places = torch.arange(len(prompts))
        counts = torch.tensor([len(prompt) for prompt in prompts])
        for _ in range(max_new_tokens):
            going: list[int] = []
            both: Any = torch.stack([places, newest], 1)
            now: list[tuple[int, int]] = both.tolist()
            for row, (place, token) in enumerate(now):
                answers[place].append(token)
                if token not in ends and len(answers[place]) < max_new_tokens:
                    going.append(row)
            if not going:
                break
            if len(going) < len(places):
                places, counts, newest = places[going], counts[going], newest[going]
            newest = self._step(newest, places, counts)
            counts = counts + 1
        return answers

    def _read(self, prompts: list[Sequence[int]], places: list[int]) -> Tensor:
        """Process prompts, cache their keys and values, and return the next tokens."""
        lengths = [len(prompt) for prompt in prompts]
        ids = torch.tensor([token for prompt in prompts for token in prompt])
        positions = torch.cat([torch.arange(length) for length in lengths])

        def attend(layer: _Layer, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            heads = layer.computes.heads
            start = 0
            for place, length in zip(places, lengths, strict=True):
                layer.keys[place, :, :length] = _by_head(k[start : start + length], heads)
                layer.values[place, :, :length] = _by_head(v[start : start + length], heads)
                start += length
            return attention(q, k, v, lengths, heads)

        hidden = self._through(ids, positions, attend)
        return self._likeliest(hidden[torch.tensor(lengths).cumsum(0) - 1])

    def _step(self, tokens: Tensor, places: Tensor, counts: Tensor) -> Tensor:
        """Return the tokens after `tokens`, (T,), whose positions, from 0, are `counts`."""
        seen = counts + 1

        def attend(layer: _Layer, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            heads = layer.computes.heads
            layer.keys[places, :, counts] = _by_head(k, heads).transpose(0, 1)
            layer.values[places, :, counts] = _by_head(v, heads).transpose(0, 1)
            return cached_attention(q, layer.keys, layer.values, places, seen, heads), q

        return self._likeliest(self._through(tokens, counts, attend))

    def _through(self, ids: Tensor, positions: Tensor, attend: Any) -> Tensor:
        """Return the hidden states after the last layer, (T, H)."""
        body = self.model.base_model
        x = cast("Tensor", body.embed_tokens(ids))
        cosine, sine = (angle[0].float() for angle in body.rotary_emb(x[None], positions[None]))
        for layer in self.layers:
            x, _ = forward_pass(
                x,
                layer.computes,
                cosine,
                sine,
                layer.groups,
                lambda q, k, v, layer=layer: attend(layer, q, k, v),
            )
        return x

    def _likeliest(self, hidden: Tensor) -> Tensor:
        """Return the most probable next token of each row, (T,)."""
        norm = self.model.base_model.norm
        normal, _ = rms_norm(hidden.contiguous(), norm.weight, norm.variance_epsilon)
        return self.head.with_rows(_thin(normal, self.head.weight), normal).argmax(1)


def _prepared(
    layer: DecoderLayer, factors: list[Factors | None], dtype: torch.dtype
) -> tuple[DecoderLayer, Groups]:
    """Return a layer whose adapter factors are scaled and cast once, not for every token."""
    members = [
        projection if projection.scaling is None else replace(projection, scaling=1.0)
        for projection in layer.projections
    ]
    pairs: list[Factors | None] = []
    for one, pair in zip(layer.projections, factors, strict=True):
        if pair is None:
            pairs.append(None)
            continue
        A, B, *magnitude = pair
        # In the layout of `thin_product`, so that it is not converted for every token.
        up = (B * (one.scaling or 1.0)).to(dtype).T.contiguous().T
        pairs.append((A.to(dtype), up, *magnitude))
    q, k, v, output, gate, up, down = members
    ready = replace(layer, qkv=(q, k, v), output=output, gate_up=(gate, up), down=down)
    return ready, grouped(ready, pairs)


def _thin(rows: Tensor, weight: Tensor) -> Tensor:
    return thin_product(rows, weight) if len(rows) <= THIN_ROWS else rows @ weight.T


def _by_head(rows: Tensor, heads: Heads) -> Tensor:
    """Return (key heads, T, width) of rows, (T, key heads · width)."""
    return rows.view(-1, heads.key, heads.width).transpose(0, 1)


def _by_transformers(
    model: Any, prompts: Sequence[Sequence[int]], ends: Sequence[int], max_new_tokens: int
) -> list[list[int]]:
    """Generate with the model's own `generate`, prompts padded on the left."""
    width, filling = max(map(len, prompts)), max(ends[0], 0)
    ids = torch.full((len(prompts), width), filling, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    output = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=filling,
    )
    answers: list[list[int]] = output[:, width:].tolist()
    return [_until(answer, ends) for answer in answers]


def _until(answer: list[int], ends: Sequence[int]) -> list[int]:
    """Truncate padding after the end token."""
    stop = next((i for i, token in enumerate(answer) if token in ends), len(answer) - 1)
    return answer[: stop + 1]
