"""From a tagger's log-probabilities to tags and entities.

Words are independent given the text, so the best valid sequence is found by the Viterbi algorithm
over the scheme's allowed transitions, which have no weights of their own. The probability of an
entity is the share of all valid sequences' probability in which exactly that entity stands, by the
forward-backward algorithm over the same transitions (Rabiner 1989).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from etude.tuning.data.tagging.schemes import entities, parse, transitions
from etude.tuning.metrics.entities import Entity

Array = NDArray[np.floating]


class TagDecoder:
    """Decoder of the log-probabilities of whole sentences.

    Args:
        labels: the tagger's C outputs.
        constrained: whether only valid sequences are decoded; else each word gets its most probable
            tag, and entities are read from them as conlleval does.
    """

    def __init__(self, labels: Sequence[str], *, constrained: bool = True) -> None:
        self.labels = tuple(labels)
        self.constrained = constrained
        self._rules = transitions(self.labels)
        if not constrained:
            for rule in (self._rules.start, self._rules.allowed, self._rules.end):
                rule[...] = True
        self._cost = np.where(self._rules.allowed, 0.0, -np.inf)
        self._parsed = [parse(label) for label in self.labels]

    def tags(self, log_probs: Array) -> list[int]:
        """Return the outputs of a sentence of n words, from (n, C) log-probabilities."""
        best = log_probs.argmax(axis=1)
        rules = self._rules
        # The best of all sequences is the best valid one if it is valid.
        if (
            len(best) == 0
            or not self.constrained
            or (
                rules.start[best[0]]
                and rules.end[best[-1]]
                and bool(rules.allowed[best[:-1], best[1:]].all())
            )
        ):
            return [int(tag) for tag in best]
        return self._viterbi(log_probs)

    def _viterbi(self, log_probs: Array) -> list[int]:
        count = len(log_probs)
        score = np.where(self._rules.start, log_probs[0], -np.inf)
        came_from = np.zeros((count, len(self.labels)), dtype=np.int32)
        for place in range(1, count):
            candidates = score[:, None] + self._cost
            came_from[place] = candidates.argmax(axis=0)
            score = candidates.max(axis=0) + log_probs[place]
        tag = int(np.where(self._rules.end, score, -np.inf).argmax())
        path = [tag]
        for place in range(count - 1, 0, -1):
            tag = int(came_from[place, tag])
            path.append(tag)
        return path[::-1]

    def entities(self, tags: Sequence[int]) -> list[Entity]:
        """Return the entities of decoded tags."""
        return entities([self.labels[tag] for tag in tags])

    def probabilities(
        self, log_probs: Array, tags: Sequence[int], found: Sequence[Entity]
    ) -> list[float]:
        """Return the probability of each entity that `tags` give, 0 to 1.

        Args:
            log_probs: (n, C).
            tags: as `self.tags` decoded them.
            found: their entities.
        """
        if not found:
            return []
        forward, backward = self._forward(log_probs), self._backward(log_probs)
        total = _log_sum(np.where(self._rules.end, forward[-1], -np.inf))
        result: list[float] = []
        for entity in found:
            inside = range(entity.start + 1, entity.end)
            last = tags[entity.end - 1]
            value = forward[entity.start, tags[entity.start]]
            value += sum(log_probs[place, tags[place]] for place in inside)
            if entity.end < len(log_probs):
                after = self._rules.allowed[last] & ~self._continuing(last)
                following = log_probs[entity.end] + backward[entity.end]
                value += _log_sum(np.where(after, following, -np.inf))
            result.append(float(np.clip(np.exp(value - total), 0.0, 1.0)))
        return result

    def _continuing(self, last: int) -> NDArray[np.bool_]:
        """Return which outputs would continue an entity that ends with `last`, (C,)."""
        letter, kind = self._parsed[last]
        goes_on = letter in "BI"
        return np.array([goes_on and a in "IE" and other == kind for a, other in self._parsed])

    def _forward(self, log_probs: Array) -> Array:
        """Return (n, C): log-sum over the ways to each word and tag, that word's included."""
        sums = np.empty(log_probs.shape, dtype=np.float64)
        sums[0] = np.where(self._rules.start, log_probs[0], -np.inf)
        for place in range(1, len(log_probs)):
            sums[place] = _log_sum(sums[place - 1][:, None] + self._cost) + log_probs[place]
        return sums

    def _backward(self, log_probs: Array) -> Array:
        """Return (n, C): log-sum over the ways from each word and tag, that word's left out."""
        sums = np.empty(log_probs.shape, dtype=np.float64)
        sums[-1] = np.where(self._rules.end, 0.0, -np.inf)
        for place in range(len(log_probs) - 2, -1, -1):
            following = log_probs[place + 1] + sums[place + 1]
            sums[place] = _log_sum((self._cost + following[None, :]).T)
        return sums


def _log_sum(values: Array) -> Array:
    """Return log Σ exp over the first axis; −inf where all are."""
    largest = values.max(axis=0)
    shift = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        return shift + np.log(np.exp(values - shift).sum(axis=0))
