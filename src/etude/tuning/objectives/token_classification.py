"""Token classification: cross-entropy over the first pieces of words, and entity F1.

Only the first piece of a word has a target and a prediction, in training as in use; the other
pieces are read. The loss of a step is divided by all its words, so every word weighs the same
however the step is cut into micro-batches, and a word in two windows counts in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from etude.tuning.data.batch import Batch
from etude.tuning.data.encoded import EncodedSample, TaggedWords
from etude.tuning.data.tagging.decoding import TagDecoder
from etude.tuning.metrics.entities import entity_score
from etude.tuning.metrics.metric import (
    ENTITY_F1,
    ENTITY_PRECISION,
    ENTITY_RECALL,
    WORD_ACCURACY,
    Metric,
)
from etude.tuning.objectives.base import LossSum, StepValues
from etude.tuning.objectives.cross_entropy import accumulator


class TokenClassification:
    """Cross-entropy of each word's tag, averaged over words.

    Args:
        decoder: decodes whole sentences, and knows the outputs.
    """

    name = "token-classification"
    unit = "nats per word"
    metrics: tuple[Metric, ...] = (ENTITY_F1, ENTITY_PRECISION, ENTITY_RECALL, WORD_ACCURACY)

    def __init__(self, decoder: TagDecoder) -> None:
        self.decoder = decoder

    def sides(self, sample: EncodedSample) -> Sequence[EncodedSample]:
        """Return the sample."""
        return (sample,)

    def normalizer(self, samples: Sequence[EncodedSample]) -> int:
        """Return the number of words that are trained."""
        return sum(sample.trained_tokens for sample in samples)

    def step_values(self, model: Any, batches: Sequence[Batch]) -> StepValues:
        """Return nothing."""
        del model, batches
        return {}

    def loss(self, model: Any, batch: Batch, values: StepValues) -> LossSum:
        """Return Σ −log p(tag) over the words; the log-probabilities of each sample are outputs."""
        del values
        log_probs = word_log_probs(model, batch)
        tags = word_tags(batch, log_probs.device)
        total = F.nll_loss(log_probs, tags, reduction="sum")
        detached = log_probs.detach()
        right = int((detached.argmax(dim=1) == tags).sum())
        sums = {WORD_ACCURACY.name: (float(right), len(tags))}
        return LossSum(total, sums, by_sample(detached, batch))

    def summarize(
        self, samples: Sequence[EncodedSample], outputs: Sequence[Any]
    ) -> dict[str, float]:
        """Return F1, precision and recall of the entities of whole sentences."""
        decoder = self.decoder
        pairs = [
            (decoder.entities(true), decoder.entities(decoder.tags(log_probs)))
            for true, log_probs in stitched(samples, outputs)
        ]
        score = entity_score([true for true, _ in pairs], [found for _, found in pairs])
        return {
            ENTITY_F1.name: score.f1,
            ENTITY_PRECISION.name: score.precision,
            ENTITY_RECALL.name: score.recall,
        }


def stitched(
    samples: Sequence[EncodedSample], outputs: Sequence[Any]
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Yield true tags and log-probabilities of each sentence, its windows joined.

    Args:
        samples: windows, those of a sentence after each other.
        outputs: (W, C) log-probabilities of the words of each.
    """
    pairs = zip(samples, outputs, strict=True)
    for _, group in groupby(pairs, key=lambda pair: _words(pair[0]).sentence):
        windows = list(group)
        true = np.concatenate([_words(sample).tags for sample, _ in windows])
        yield [int(tag) for tag in true], np.concatenate([output for _, output in windows])


def token_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return the logits of every token, padding included.

    Args:
        model: a transformers model for token classification; within `packed_rows` where the batch
            is packed.
        batch: B samples.

    Returns:
        (B, T, classes) of padded rows, (1, T, classes) of a packed one.
    """
    inputs = batch.inputs(model.device)
    del inputs["targets"]
    return cast("torch.Tensor", model(**inputs).logits)


def word_log_probs(model: Any, batch: Batch) -> torch.Tensor:
    """Return the log-probabilities of the tags of all words of a batch in order, (W, classes).

    In float32 at least. Args as `token_logits`.
    """
    logits = token_logits(model, batch)
    if batch.layout.packed:
        lengths = np.array([len(sample) for sample in batch])
        starts = np.cumsum(lengths) - lengths
    else:
        starts = np.arange(len(batch)) * logits.shape[1]
    places = np.concatenate(
        [start + _words(sample).pieces for start, sample in zip(starts, batch, strict=True)]
    )
    chosen = logits.flatten(0, 1).index_select(0, torch.as_tensor(places, device=logits.device))
    return chosen.to(accumulator(chosen.dtype)).log_softmax(dim=1)


def word_tags(batch: Batch, device: torch.device) -> torch.Tensor:
    """Return the tags of all words of a batch in order, (W,) int64."""
    tags = np.concatenate([_words(sample).tags for sample in batch])
    return torch.as_tensor(tags.astype(np.int64), device=device)


def by_sample(log_probs: torch.Tensor, batch: Batch) -> list[NDArray[np.float32]]:
    """Return the log-probabilities of each sample's words, as `word_log_probs` returns all."""
    counts = [sample.trained_tokens for sample in batch]
    ends = np.cumsum(np.asarray(counts, dtype=np.int64))
    whole = np.asarray(log_probs.float().cpu())
    return [whole[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _words(sample: EncodedSample) -> TaggedWords:
    assert sample.words is not None, "a sample of another task"
    return sample.words
