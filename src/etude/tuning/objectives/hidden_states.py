"""Matching of hidden states: a student's layers learn what a teacher's layers hold.

Between two layers, after the student's first s and the teacher's first t, with states x (width H)
and y (width H') of the same position,

    λ · mean over pairs (s, t) of Σ over positions  w · ‖P x − y‖² / H'

P (H', H) is learned with the student, one for each pair, and is no part of what is saved (Romero et
al. 2015, "FitNets", eq. 3; Jiao et al. 2020, "TinyBERT", eq. 7). Positions are those that the task
trains: of a language model the trained tokens, of a tagger the first pieces of words, w = 1; of a
classifier all tokens, w = 1 / tokens of the text, so that a text counts as one.

States are taken where a layer begins, so neither the first embedding nor what the last layer
computes is matched: the former is the base's, the latter is what the teacher's distributions say.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from etude.core.errors import RecipeError
from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.models.cut import layer_stack

PREFIX = "distillation.projection"
"""What the projections are called among the trained weights."""


def layer_map(
    pairs: Sequence[Sequence[int]] | None, student: int, teacher: int
) -> list[tuple[int, int]]:
    """Return after how many layers of each model states are matched.

    Args:
        pairs: the recipe's `objective.hidden_layers`; None: after every layer of the student but
            the last, at the same share of the teacher's layers.
        student: its number of layers.
        teacher: its number of layers.

    Raises:
        RecipeError: a model has no place between two layers, or not that one.
    """
    if student < 2 or teacher < 2:
        raise RecipeError(
            "objective.hidden_weight: states are matched between two layers, and the "
            f"{'student' if student < 2 else 'teacher'} has one; omit it"
        )
    if pairs is None:
        nearest = [(s, round(s * teacher / student)) for s in range(1, student)]
        return [(s, min(max(t, 1), teacher - 1)) for s, t in nearest]
    for pair in pairs:
        for name, place, count in zip(
            ("student", "teacher"), pair, (student, teacher), strict=True
        ):
            if not 1 <= place < count:
                raise RecipeError(
                    f"objective.hidden_layers: {list(pair)}: after {place} layers of the {name} "
                    f"is no place between two of its {count}; name 1 to {count - 1}"
                )
    return [(pair[0], pair[1]) for pair in pairs]


class HiddenMatch:
    """Matching of hidden states, with its learned projections.

    Args:
        pairs: after how many layers of student and teacher.
        widths: of student and teacher.
        weight: λ.
        seed: of projections between different widths; between equal ones they begin as identity.
        device: of the projections.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        widths: tuple[int, int],
        weight: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self.pairs = list(pairs)
        self.weight = weight
        self.projections: dict[str, nn.Parameter] = {}
        generator = torch.Generator().manual_seed(seed)
        for s, t in self.pairs:
            begun = (
                torch.eye(widths[1])
                if widths[0] == widths[1]
                else torch.randn(widths[1], widths[0], generator=generator) / widths[0] ** 0.5
            )
            self.projections[f"{PREFIX}.{s}-{t}"] = nn.Parameter(begun.to(device))
        self._teacher: list[Tensor] = []

    @contextmanager
    def teacher(self, model: Any, batch: Batch) -> Generator[None]:
        """Context manager: remember the teacher's states of a pass through it."""
        with states_after([t for _, t in self.pairs], model) as found:
            yield
        self._teacher = [chosen(states, batch)[0].detach() for states in found]

    @contextmanager
    def student(self, model: Any) -> Generator[list[Tensor]]:
        """Context manager: yield the list that the student's states of a pass will be in."""
        with states_after([s for s, _ in self.pairs], model) as found:
            yield found

    def loss(self, found: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return λ times the distance of the student's states from the teacher's, a scalar.

        Args:
            found: what `student` yielded, after the pass.
            batch: that both models have seen.
        """
        total = torch.zeros((), device=found[0].device)
        for states, known, projection in zip(
            found, self._teacher, self.projections.values(), strict=True
        ):
            own, weights = chosen(states, batch)
            total = total + distance(own, known, projection, weights)
        self._teacher = []
        return self.weight * total / len(self.pairs)


def distance(own: Tensor, known: Tensor, projection: Tensor, weights: Tensor) -> Tensor:
    """Return Σ w ‖P x − y‖² / H', in the projection's dtype.

    Args:
        own: x, (N, H).
        known: y, (N, H').
        projection: P, (H', H).
        weights: w, (N,).
    """
    dtype = projection.dtype
    # The sum of many squares is not one for bfloat16.
    with torch.autocast(own.device.type, enabled=False):
        apart = own.to(dtype) @ projection.t() - known.to(dtype)
        return (weights.to(dtype) * apart.square().mean(dim=1)).sum()


def chosen(states: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the states of the positions that are matched, (N, width), and their weights, (N,).

    Args:
        states: (rows, tokens, width), in the batch's layout.
        batch: the samples.
    """
    starts: list[int] = []
    place = 0
    for number, sample in enumerate(batch):
        starts.append(place if batch.layout.packed else number * states.shape[1])
        place += len(sample)
    places = [start + _positions(one) for start, one in zip(starts, batch, strict=True)]
    shares = [1 / len(sample) if _is_text(sample) else 1.0 for sample in batch]
    weights = [np.full(len(one), share) for one, share in zip(places, shares, strict=True)]
    index = torch.as_tensor(np.concatenate(places), device=states.device)
    return (
        states.flatten(0, 1).index_select(0, index),
        torch.as_tensor(np.concatenate(weights), device=states.device),
    )


def _is_text(sample: EncodedSample) -> bool:
    return sample.label is not None


def _positions(sample: EncodedSample) -> Any:
    if _is_text(sample):
        return np.arange(len(sample))
    if sample.words is not None:
        return sample.words.pieces.astype(np.int64)
    # The state that predicts a token is that of the one before.
    return np.flatnonzero(sample.trained) - 1


@contextmanager
def states_after(places: Sequence[int], model: Any) -> Generator[list[Tensor]]:
    """Context manager: yield a list that has, after a pass, the states after so many layers."""
    layers = layer_stack(model)
    found: dict[int, Tensor] = {}

    def keep(place: int) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            del module
            found[place] = cast("Tensor", given[0] if given else named["hidden_states"])

        return hook

    hooks = [
        layers[place].register_forward_pre_hook(keep(place), with_kwargs=True)
        for place in dict.fromkeys(places)
    ]
    states: list[Tensor] = []
    try:
        yield states
        states.extend(found[place] for place in places)
    finally:
        for hook in hooks:
            hook.remove()
