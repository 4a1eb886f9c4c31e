"""Listwise loss of a reranker: of a query's documents, the relevant ones are to score highest.

    loss_q = −log ( Σ_{d relevant to q} e^{s(q, d)}  /  Σ_d e^{s(q, d)} )

s(q, d) is the one output of a cross-encoder, which reads query and document together; d runs over
the documents that a query is given with (Cao et al. 2007, "ListNet", top-one probability, with
relevance 0 or 1). The loss does not change if a number is added to all scores of a query, so scores
compare within a query; their sigmoid is what programs for cross-encoders show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.metrics.metric import MRR, NDCG, RECALL_10, Metric
from etude.tuning.metrics.retrieval import MISSED, ndcg, recall, reciprocal_rank, reranked
from etude.tuning.objectives.base import LossSum, StepValues
from etude.tuning.objectives.classification import class_logits


class Listwise:
    """Listwise cross-entropy; see the module docstring.

    Args:
        baselines: scores of the first stage, which `measure` reports beside the model's.
    """

    name = "listwise"
    unit = "nats per query"
    metrics: tuple[Metric, ...] = (NDCG, MRR, RECALL_10)

    def __init__(self, baselines: Mapping[str, Any] | None = None) -> None:
        self.baselines = baselines or {}

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return the query with each of its documents."""
        return sample.sides

    def normalizer(self, samples: Sequence[EncodedSample]) -> int:
        """Return the number of queries."""
        return len(samples)

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return nothing."""
        del model, batches
        return {}

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ loss, with the scores of each query's documents as output."""
        del values
        flat = batch.of([side for sample in batch for side in sample.sides])
        scores = class_logits(model, flat)[:, 0]
        total = scores.new_zeros(())
        outputs: list[NDArray[np.float32]] = []
        first = 0
        for sample in batch:
            own = scores[first : first + len(sample.sides)]
            first += len(sample.sides)
            total = total + own.logsumexp(0) - own[: relevant_sides(sample)].logsumexp(0)
            outputs.append(own.detach().float().cpu().numpy())
        return LossSum(total, outputs=outputs)

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return NDCG@10, MRR@10 and recall@10 of the candidates in the order of their scores."""
        return ranking_metrics(reranked_ranks(samples, outputs)) if outputs else {}


def first_ranks(sample: EncodedSample) -> tuple[int, ...]:
    """Return the first stage's rank of each relevant document of a query, 0 where it missed it."""
    return cast("tuple[int, ...]", sample.label)


def relevant_sides(sample: EncodedSample) -> int:
    """Return how many of the sides, the first ones, hold a relevant document."""
    return max(1, sum(rank > 0 for rank in first_ranks(sample)))


def first_stage_ranks(samples: Sequence[EncodedSample]) -> list[NDArray[np.int64]]:
    """Return the ranks of each query's relevant documents in the first stage's order."""
    return [
        np.sort(np.asarray([rank or MISSED for rank in first_ranks(sample)], dtype=np.int64))
        for sample in samples
    ]


def reranked_ranks(
    samples: Sequence[EncodedSample], outputs: Sequence[Any]
) -> list[NDArray[np.int64]]:
    """Return the ranks of each query's relevant documents in the order of the model's scores.

    What the first stage has missed stays missed.

    Args:
        samples: held-out queries.
        outputs: scores of each query's sides.
    """
    found: list[NDArray[np.int64]] = []
    for sample, scores in zip(samples, outputs, strict=True):
        hits = sum(rank > 0 for rank in first_ranks(sample))
        shown = np.asarray(scores)[relevant_sides(sample) - hits :]
        missed = len(first_ranks(sample)) - hits
        found.append(reranked(shown, np.arange(len(shown)) < hits, missed))
    return found


def ranking_metrics(found: list[NDArray[np.int64]]) -> dict[str, float]:
    """Return NDCG@10, MRR@10 and recall@10 of ranks."""
    return {
        "ndcg": ndcg(found, 10),
        "mrr": reciprocal_rank(found, 10),
        "recall_10": recall(found, 10),
    }
