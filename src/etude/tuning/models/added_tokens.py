"""Tokens that a recipe adds to a model's vocabulary, and the rows of its matrices for them.

A new token has the first free number. Embedding and output matrix get a row for each number beyond
their end; some models have rows to spare there, which are used first.

A new row begins as the mean of the pretrained ones, as `resize_token_embeddings` of transformers
begins it (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"): then a
new token is about as probable as the average one, where a random row may take all probability from
the others. transformers draws from a normal distribution around the mean, of 1e-9 of the rows'
covariance. That is less than a unit of rounding in 16 bits, and would make a run depend on the
state of a random generator; the tokens' different gradients part their rows at the first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AddedToken

from etude.core.errors import ModelError
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.models.token_lists import wanted_tokens

_ROWS = 4096
"""Rows that are summed at once."""


@dataclass(frozen=True)
class AddedTokens:
    """Tokens that were added to a vocabulary."""

    tokens: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    """Their numbers, in the order of `tokens`."""

    known: tuple[str, ...] = ()
    """Tokens that were to be added, and that the vocabulary had already."""

    @property
    def notes(self) -> list[str]:
        """Lines for the user: what was added, and what not."""
        found: list[str] = []
        if self.tokens:
            several = "s" if len(self.tokens) > 1 else ""
            found.append(f"added {len(self.tokens)} token{several}: {_some(self.tokens)}")
        if self.known:
            found.append(f"already in the vocabulary, not added: {_some(self.known)}")
        return found


NO_TOKENS = AddedTokens()


def add_tokens(tokenizer: Any, spec: ModelSpec) -> AddedTokens:
    """Add a recipe's tokens to a tokenizer, in place.

    Raises:
        ModelError: as `wanted_tokens`, or the tokenizer does not take a token.
    """
    wanted = wanted_tokens(spec)
    if not wanted:
        return NO_TOKENS
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    known = tuple(token for token in wanted if token in vocabulary)
    new = {token: special for token, special in wanted.items() if token not in vocabulary}
    tokenizer.add_tokens(
        # Taken as it stands, letters and spaces around it unchanged.
        [AddedToken(token, special=special, normalized=False) for token, special in new.items()]
    )
    ids = [int(tokenizer.convert_tokens_to_ids(token)) for token in new]
    used = set(vocabulary.values())
    for token, number in zip(new, ids, strict=True):
        found: Any = tokenizer(f"a{token}a", add_special_tokens=False)["input_ids"]
        if number not in found or number in used:
            raise ModelError(
                f"model.add_tokens: the tokenizer of {spec.id} does not take {token!r}"
            )
    return AddedTokens(tuple(new), tuple(ids), known)


def matrices(model: Any) -> dict[str, nn.Module]:
    """Return the modules with a row for each token, by path: embedding and output matrix."""
    ends = model.get_input_embeddings(), _output(model)
    modules: Iterable[tuple[str, nn.Module]] = model.named_modules(remove_duplicate=False)
    return {path: module for path, module in modules if any(module is end for end in ends)}


def _output(model: Any) -> Any:
    get: Any = getattr(model, "get_output_embeddings", None)
    return get() if get is not None else None


def rooms(model: Any, added: AddedTokens) -> dict[str, int]:
    """Return how many rows each of the model's parameters needs beyond its own, by name."""
    ends = matrices(model)
    words = len(cast("Tensor", model.get_input_embeddings().weight))
    more = max(added.ids, default=-1) + 1 - words
    if more <= 0:
        return {}
    return {
        f"{path}.{leaf}": more
        for path, module in ends.items()
        for leaf, parameter in module.named_parameters(recurse=False)
        if len(parameter) == words
    }


def take_rows(model: Any, rooms: Mapping[str, int]) -> None:
    """Let the modules and the configuration say how many rows there are, and begin the new ones.

    Args:
        model: with the matrices that have grown already.
        rooms: see `rooms`.
    """
    begun: set[int] = set()
    words = 0
    for name, more in rooms.items():
        owner, _, leaf = name.rpartition(".")
        module: Any = model.get_submodule(owner)
        value: Tensor = getattr(module, leaf)
        words = len(value)
        if isinstance(module, nn.Embedding):
            module.num_embeddings = words
        else:
            module.out_features = words
        if id(value) not in begun:
            value.data[-more:] = mean_row(value[:-more]).to(value.dtype)
            begun.add(id(value))
    if words:
        model.config.get_text_config().vocab_size = words
        for part in (model, model.base_model):
            if hasattr(part, "vocab_size"):
                part.vocab_size = words


@torch.no_grad()
def begin_rows(matrix: Tensor, ids: Sequence[int]) -> None:
    """Set rows of a matrix that is trained whole to the mean of all of them, in place."""
    matrix[torch.tensor(list(ids), device=matrix.device)] = mean_row(matrix).to(matrix.dtype)


@torch.no_grad()
def mean_row(matrix: Tensor) -> Tensor:
    """Return the mean of all rows, (width,) float32, summed in float64 a few rows at a time."""
    total = torch.zeros(matrix.shape[1:], dtype=torch.float64, device=matrix.device)
    for start in range(0, len(matrix), _ROWS):
        total += matrix.detach()[start : start + _ROWS].double().sum(0)
    return (total / len(matrix)).float()


def _some(tokens: tuple[str, ...]) -> str:
    more = f" and {len(tokens) - 8} more" if len(tokens) > 8 else ""
    return ", ".join(tokens[:8]) + more
