"""Contrastive learning of embeddings: each text is to be nearest to its own positive.

    loss_i = −log ( Σ_{j positive of i} e^{s_ij / τ}  /  Σ_j e^{s_ij / τ} ),   s = cosine similarity

j runs over the positives (and the negatives, if rows have one) of all samples of the optimiser
step: in-batch negatives (van den Oord et al. 2018; sentence-transformers'
MultipleNegativesRankingLoss, whose scale is 1/τ). Texts of the same class, and equal texts, are not
each other's negatives.

The loss couples all samples of a step, which may not fit into one micro-batch. So embeddings are
computed first without a graph; the loss gives each embedding's gradient g; and each micro-batch is
computed again, with the same dropout, for the gradient of Σ g·e in the weights, which is the loss's
(Gao et al. 2021, "GradCache"). A step that is one micro-batch is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F

from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.packed_heads import token_states
from etude.tuning.metrics.metric import MRR, NDCG, RECALL_1, RECALL_10, Metric
from etude.tuning.metrics.retrieval import ndcg, ranks, recall, reciprocal_rank
from etude.tuning.objectives.base import LossSum, StepValues

_BLOCK = 512
"""Anchors whose similarities are computed together."""


class Contrastive:
    """In-batch contrastive loss; see the module docstring.

    Args:
        temperature: τ.
    """

    name = "contrastive"
    unit = "nats per sample"
    metrics: tuple[Metric, ...] = (RECALL_10, RECALL_1, MRR, NDCG)

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return the text, its positive and, if there is one, its negative."""
        return sample.sides

    def normalizer(self, samples: Sequence[EncodedSample]) -> int:
        """Return the number of samples."""
        return len(samples)

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return each embedding's share of the loss and its gradient, for all micro-batches."""
        if len(batches) == 1:
            return {}
        embedded: list[torch.Tensor] = []
        states: list[torch.Tensor] = []
        with torch.no_grad():
            for batch in batches:
                states.append(torch.get_rng_state())
                embedded.append(embed(model, _sides(batch)))
        samples = [sample for batch in batches for sample in batch]
        vectors = torch.cat(embedded).float()
        training = bool(model.training)
        with torch.enable_grad():
            leaf = vectors.requires_grad_(training)
            losses = contrastive_losses(leaf, samples, self.temperature)
            if training:
                losses.sum().backward()  # pyright: ignore[reportUnknownMemberType]
        values: dict[str, Any] = {}
        first = side = 0
        for batch, state in zip(batches, states, strict=True):
            sides = len(_sides(batch))
            values[_key(batch)] = _Cached(
                losses[first : first + len(batch)].detach(),
                vectors[side : side + sides].detach(),
                None if leaf.grad is None else leaf.grad[side : side + sides],
                state,
            )
            first, side = first + len(batch), side + sides
        return values

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss, with the embeddings of each sample's sides as output."""
        cached = cast("_Cached | None", values.get(_key(batch)))
        if cached is None:
            vectors = embed(model, _sides(batch)).float()
            total = contrastive_losses(vectors, list(batch), self.temperature).sum()
        else:
            vectors, total = cached.vectors, cached.losses.sum()
            if cached.gradients is not None:
                torch.set_rng_state(cached.state)
                again = embed(model, _sides(batch)).float()
                surrogate = (again * cached.gradients).sum()
                total = surrogate - surrogate.detach() + total
        return LossSum(total, {}, _outputs(batch, vectors.detach()))

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return the retrieval metrics of the samples' texts among all positives."""
        found = retrieval_ranks(samples, outputs)
        return {
            "recall_10": recall(found, 10),
            "recall_1": recall(found, 1),
            "mrr": reciprocal_rank(found, 10),
            "ndcg": ndcg(found, 10),
        }


@dataclass(frozen=True)
class _Cached:
    """What the loss of a whole step says of one micro-batch."""

    losses: torch.Tensor
    """(samples,)"""
    vectors: torch.Tensor
    """(sides, d)"""
    gradients: torch.Tensor | None
    """(sides, d); None in evaluation."""
    state: torch.Tensor
    """Of the random generator before the forward pass, so that dropout repeats."""


def contrastive_losses(
    vectors: torch.Tensor, samples: Sequence[EncodedSample], temperature: float
) -> torch.Tensor:
    """Return the loss of each sample, (N,).

    Args:
        vectors: (sides, d), normalised: of each sample its text, its positive, its negative.
        samples: N samples.
        temperature: τ.
    """
    counts = [len(sample.sides) for sample in samples]
    starts = np.cumsum([0, *counts[:-1]])
    anchors = vectors[_index(starts)]
    candidates = vectors[_index(_candidates(starts, counts))]
    anchor_keys = np.asarray([key(sample) for sample in samples])
    own = np.asarray([key(sample.sides[1]) for sample in samples])
    texts = np.asarray(
        [key(side) for sample in samples for side in sample.sides[1:]], dtype=np.int64
    )
    groups = np.asarray([-1 if s.label is None else s.label for s in samples])
    of_candidate = np.repeat(groups, [count - 1 for count in counts])
    is_negative = np.asarray([place > 1 for count in counts for place in range(1, count)])
    losses: list[torch.Tensor] = []
    for first in range(0, len(samples), _BLOCK):
        rows = slice(first, first + _BLOCK)
        scores = anchors[rows] @ candidates.T / temperature
        same = (groups[rows, None] == of_candidate) & (groups[rows, None] >= 0) & ~is_negative
        positive = (texts == own[rows, None]) & ~is_negative | same
        left_out = (texts == anchor_keys[rows, None]) & ~positive
        scores = scores.masked_fill(_index(left_out), -torch.inf)
        numerator = scores.masked_fill(_index(~positive), -torch.inf).logsumexp(1)
        losses.append(scores.logsumexp(1) - numerator)
    return torch.cat(losses)


def _candidates(starts: np.ndarray[Any, Any], counts: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return the places of all sides that are not a sample's own text."""
    places = [
        int(start) + other
        for start, count in zip(starts, counts, strict=True)
        for other in range(1, count)
    ]
    return np.asarray(places)


def _index(values: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return an array's values as a tensor that shares its memory."""
    return torch.from_numpy(values)  # pyright: ignore[reportUnknownMemberType]


def key(side: EncodedSample) -> int:
    """Return a number of a text: equal texts have equal ones, others in all likelihood not."""
    return hash(side.input_ids.tobytes())


def embed(model: Any, batch: Batch) -> torch.Tensor:
    """Return the embedding of each text, (n, d): the mean of its tokens' states, of length one.

    Args:
        model: a transformers model without a head.
        batch: texts, packed or padded.
    """
    inputs = batch.inputs(model.device)
    if batch.layout.packed:
        states, lengths = token_states(model, inputs)
        split = cast("Callable[..., tuple[torch.Tensor, ...]]", torch.split_with_sizes)
        parts = split(states.float(), lengths)[: len(batch)]
        pooled = torch.stack([part.mean(dim=0) for part in parts])
    else:
        del inputs["targets"]
        states = cast("torch.Tensor", model(**inputs).last_hidden_state)
        mask = cast("torch.Tensor", inputs["attention_mask"])[:, :, None].to(torch.float32)
        pooled = (states.float() * mask).sum(dim=1) / mask.sum(dim=1)
    return F.normalize(pooled, dim=1)


def retrieval_ranks(
    samples: Sequence[EncodedSample], outputs: Sequence[Any]
) -> list[np.ndarray[Any, Any]]:
    """Return, of each different text, the ranks of its relevant documents.

    Documents are the different positives and negatives of all samples. Of labelled texts, they are
    the other texts, relevant if they have the same label.

    Args:
        samples: held-out samples.
        outputs: (sides, d) of each sample.
    """
    if all(sample.label is not None for sample in samples):
        vectors = np.stack([sides[0] for sides in outputs])
        groups = np.asarray([sample.label for sample in samples], dtype=np.int64)
        own = np.arange(len(samples))
        return ranks(vectors, vectors, query_groups=groups, document_groups=groups, own=own)
    documents: dict[int, int] = {}
    rows: list[Any] = []
    queries: dict[int, int] = {}
    asked: list[Any] = []
    pairs: list[tuple[int, int]] = []
    for sample, sides in zip(samples, outputs, strict=True):
        for side, vector in zip(sample.sides[1:], sides[1:], strict=True):
            if documents.setdefault(key(side), len(rows)) == len(rows):
                rows.append(vector)
        if queries.setdefault(key(sample), len(asked)) == len(asked):
            asked.append(sides[0])
        pairs.append((queries[key(sample)], documents[key(sample.sides[1])]))
    relevant = np.zeros((len(asked), len(rows)), dtype=np.bool_)
    for query, document in pairs:
        relevant[query, document] = True
    return ranks(np.stack(asked), np.stack(rows), relevant)


def _sides(batch: Batch) -> Batch:
    return batch.of([side for sample in batch for side in sample.sides])


def _key(batch: Batch) -> str:
    """Return what names a micro-batch within its step."""
    return ",".join(str(id(sample)) for sample in batch)


def _outputs(batch: Batch, vectors: torch.Tensor) -> list[Any]:
    rows = iter(vectors.cpu().numpy())
    return [np.stack([next(rows) for _ in sample.sides]) for sample in batch]
