"""Outputs of a model whose samples share a row: per sample, or per token.

    per token        model(**inputs).logits, (1, T, C): such a head needs nothing of this module
    class logits     `segment_logits`, (n, C): the model's own head, on the token that it reads
    hidden states    `token_states`, (T, H), and the segments' lengths, for pooling per segment

All of them within `fusion.layout.row_layout` (or `packed_rows`), with the inputs of a packed batch.

A head for whole sequences reads one token of a row: an encoder's the first, a decoder's the last.
An encoder's pooler and head are therefore run on a batch of first tokens, (n, 1, H), in place of
the row, and so is most of its last layer, if that is fused (`read_rows`); a decoder's head, a
product per token, on last tokens.

`packing_obstacle` tries whether a model gives a sample in a packed row what it gives it alone.
Models differ in what positions they count, in how they attend, and in which of their parts mix
tokens, and no name says so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from etude.core.errors import innermost_reason
from etude.tuning.data.batch import PACKED_ROWS, Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.encoder_eligibility import encoder_layers
from etude.tuning.fusion.layout import row_layout
from etude.tuning.fusion.read_rows import only_rows
from etude.tuning.quant.int8 import Int8Linear

_LENGTHS = (5, 9, 7)
"""Tokens of the samples of the trial, fewer than any model's context."""

_TOLERANCE = {4: 1e-3, 8: 1e-6, 2: 2**-4}
"""Relative difference that another order of sums may make, by the bytes of a number: some hundred
roundings one after another, of 2^-24, 2^-53 and 2^-8 each. Another position, or the head on another
token, makes a difference of the size of the outputs."""


def token_states(model: Any, inputs: dict[str, Any]) -> tuple[Tensor, list[int]]:
    """Return the last hidden state of each token of a packed row, (T, H), and segment lengths.

    Args:
        model: a transformers model, within `packed_rows`.
        inputs: of a packed batch (`Batch.inputs`).

    Returns:
        The states, and the lengths as in `inputs`: those of the samples in order, and of a last
        segment that fills the row, if there is one.
    """
    given = {name: value for name, value in inputs.items() if name != "targets"}
    states = cast("Tensor", model.base_model(**given).last_hidden_state)
    return states[0], inputs["segment_lengths"]


def segment_logits(model: Any, inputs: dict[str, Any], samples: int) -> Tensor:
    """Return the logits of the classes of each sample of a packed row, (samples, classes).

    Args:
        model: a transformers model for sequence classification, within `packed_rows`.
        inputs: of a packed batch (`Batch.inputs`).
        samples: how many segments are samples; what fills the row comes last.
    """
    given = {name: value for name, value in inputs.items() if name != "targets"}
    lengths: list[int] = inputs["segment_lengths"][:samples]
    ends = list(accumulate(lengths))
    device = inputs["input_ids"].device
    if _reads_last_token(model):
        last = torch.tensor([end - 1 for end in ends], device=device)
        states, _ = token_states(model, {**inputs, "use_cache": False})
        return model.score(states.index_select(0, last))
    first = torch.tensor([0, *ends[:-1]], device=device)
    with _a_row_each(model.base_model, first):
        return model(**given).logits


def _reads_last_token(model: Any) -> bool:
    """Return whether the head is that of transformers' decoders, which classify by the last."""
    return isinstance(getattr(model, "score", None), nn.Module)


@contextmanager
def _a_row_each(trunk: Any, tokens: Tensor) -> Generator[None]:
    """Context manager: let the trunk return one row a segment, of its token in `tokens` alone."""
    plain, pooler = trunk.forward, getattr(trunk, "pooler", None)
    last = next(reversed(encoder_layers(trunk)), None)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if pooler is not None:
            trunk.pooler = None  # it would pool the row
        try:
            with only_rows(last, tokens) as request:
                output = plain(*args, **kwargs)
        finally:
            if pooler is not None:
                trunk.pooler = pooler
        states = cast("Tensor", output.last_hidden_state)[0]
        read = states if request.computed else states.index_select(0, tokens)
        output.last_hidden_state = read[:, None]
        if pooler is not None:
            output.pooler_output = pooler(output.last_hidden_state)
        return output

    trunk.forward = forward
    try:
        yield
    finally:
        del trunk.forward


_tried: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


def packing_obstacle(model: Any, *, per_token: bool = False) -> str | None:
    """Return why samples of a model cannot share a row, for the user; None: they can.

    Three random samples are given to the model packed, alone by its own code, and packed beside
    another neighbour: the outputs must be those of samples alone, and no bit of the neighbour may
    show. The answer is kept for as long as the model is.

    Args:
        model: a transformers model, with a head or without.
        per_token: whether it has an output per token, not per sample; without a head, states are.
    """
    if model not in _tried:
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                _tried[model] = _difference(model, per_token=per_token)
        except Exception as error:  # each model's own code runs here, and refuses in its own way
            _tried[model] = f"{type(model).__name__}: {innermost_reason(error)}"
        finally:
            model.train(was_training)
    return _tried[model]


def _difference(model: Any, *, per_token: bool) -> str | None:
    """Return in what the outputs of packed samples differ from those of samples alone."""
    config = model.config.get_text_config()
    generator = np.random.default_rng(0)
    known = np.setdiff1d(np.arange(int(config.vocab_size)), [int(config.pad_token_id or 0)])
    samples = [_sample(generator.choice(known, length)) for length in _LENGTHS]
    packed = _outputs(model, samples, per_token=per_token)
    rows = [torch.as_tensor(one.input_ids, device=model.device).long()[None] for one in samples]
    alone = [_output(model(input_ids=row)) for row in rows]
    for found, true in zip(packed, alone, strict=True):
        near = _TOLERANCE[true.element_size()] * _size(true)
        if not _size(found - true[0]) <= near:  # NaN is no match
            return f"{type(model).__name__} gives a packed sample other outputs than one alone"
    other = replace(samples[0], input_ids=generator.choice(known, _LENGTHS[0]).astype(np.int32))
    beside = _outputs(model, [other, *samples[1:]], per_token=per_token)
    # Rounding to 8 bits picks columns that all samples of a row share.
    shared = any(isinstance(m, Int8Linear) and m.computes_int8 for m in model.modules())
    if not shared and not all(
        torch.equal(one, two) for one, two in zip(packed[1:], beside[1:], strict=True)
    ):
        return f"{type(model).__name__} lets samples of a row see each other"
    return None


def _outputs(model: Any, samples: list[EncodedSample], *, per_token: bool) -> list[Tensor]:
    """Return the output of each sample of one packed row."""
    inputs = Batch(samples, PACKED_ROWS).inputs(model.device)
    with row_layout(model, PACKED_ROWS):
        if not per_token:
            return list(segment_logits(model, inputs, len(samples)))
        del inputs["targets"]
        outputs = _output(model(**inputs))[0]
    split = cast("Callable[..., tuple[Tensor, ...]]", torch.split_with_sizes)
    return list(split(outputs, inputs["segment_lengths"]))[: len(samples)]


def _size(x: Tensor) -> float:
    """Return the norm of all numbers."""
    return float(x.double().square().sum().sqrt())


def _output(output: Any) -> Tensor:
    """Return the logits of a model's head, or the states of a model without one."""
    found = output.logits if "logits" in output else output.last_hidden_state
    return cast("Tensor", found)


def _sample(ids: np.ndarray) -> EncodedSample:
    return EncodedSample(ids.astype(np.int32), np.zeros(len(ids), np.bool_), "a trial")
