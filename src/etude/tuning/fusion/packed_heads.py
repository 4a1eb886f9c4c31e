"""Outputs of a model whose samples share a row: per sample, or per token.

    per token        model(**inputs).logits, (1, T, C): such a head needs nothing of this module
    class logits     `segment_logits`, (n, C): the model's own head, on the token that it reads
    hidden states    `token_states`, (T, H), and the segments' lengths, for pooling per segment

All of them within `fusion.layout.row_layout` (or `packed_rows`), with the inputs of a packed batch.

A head for whole sequences reads one token of a row: an encoder's the first, a decoder's the last.
An encoder's pooler and head are therefore run on a batch of first tokens, (n, 1, H), in place of
the row, and so is most of its last layer, if that is fused (`read_rows`); a decoder's head, a
product per token, on last tokens.

Whether a model gives a sample in a packed row what it gives it alone, `packing_probe` tries.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn

from etude.tuning.fusion.encoder_eligibility import encoder_layers
from etude.tuning.fusion.read_rows import only_rows


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
