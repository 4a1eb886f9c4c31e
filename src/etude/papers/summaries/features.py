"""Features of the ranking model: a row of numbers per sentence of an abstract.

For every word of an abstract, `word_features` gives position, frequency, presence in the title and
rarity; from these a first model estimates the probability that the word is in a one-line summary.
For every sentence, `sentence_features` gives position, length, similarity to title and abstract,
cue phrases, the same of its neighbours, and sums of the words' probabilities.

Numbers are rounded to thousandths before a tree compares them, so that the last bit of a sum,
which differs between machines, cannot change a decision.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from etude.core.words import RANKER_STOP_WORDS, strip_suffix
from etude.papers.words import folded

Array = NDArray[np.float64]

BUCKETS: Final = 1 << 15
"""Number of hash buckets of words, for their rarity."""
GRAMS: Final = 1 << 16
"""Number of hash buckets of words and bigrams, for the linear models."""

_TOKEN = re.compile(r"[a-z0-9]+")


@lru_cache(maxsize=200_000)
def bucket(text: str, size: int) -> int:
    """Return the hash bucket of `text`; the same on every machine."""
    return zlib.crc32(text.encode()) % size


def tokens(text: str) -> list[str]:
    """Return the words of `text`, lower case, without accents."""
    return _TOKEN.findall(text.lower() if text.isascii() else folded(text))


_CUES: Final[tuple[str, ...]] = (
    r"\bin this (?:paper|work|article|study|report|letter)\b|\bthis (?:paper|work|article|study)\b",
    r"\bwe (?:\w+ly )?(?:propose|introduce|present|develop|design|describe|devise|offer|provide)\b",
    r"\bwe (?:\w+ly |also |further )?(?:show|demonstrate|find|prove|observe|establish|reveal)\b",
    r"\bwe (?:\w+ly )?(?:study|consider|investigate|explore|examine|analy[sz]e|address|tackle|"
    r"ask|focus)\b",
    r"\bwe (?:\w+ly )?(?:evaluate|apply|test|validate|compare|conduct|perform|verify|report)\b",
    r"\bwe\b",
    r"\bour\b",
    r"\bpropos|\bintroduc|\bpresent",
    r"\b(?:novel|new)\b",
    r"\bsimple|\beffective|\befficient",
    r"\bstate[- ]of[- ]the[- ]art\b|\boutperform|\bsuperior|\bimprove",
    r"\bexperiment|\bempirical|\bresults?\b|\bevaluat",
    r"\bhowever\b|\bbut\b|\balthough\b|\bdespite\b|\bunfortunately\b|\byet\b",
    r"\bcode\b|https?://|\bgithub\b|\bavailable\b|\bdataset",
    r"\bspecifically\b|\bin particular\b|\bto this end\b|\bfor example\b|\bfor instance\b",
    r"\badditionally\b|\bfurthermore\b|\bmoreover\b|\bfinally\b|\bin addition\b|\balso\b",
    r"^(?:we|in this (?:paper|work))\b",
    r"^(?:this|these|it|they|such|our)\b",
    r"^(?:however|but|yet|while|although|despite)\b",
    r"\bmethod|\bapproach|\bframework|\balgorithm|\bmodel|\barchitecture",
    r"\bby (?:\w+ing)\b|\bthat (?:can|is|are|uses?|learns?|allows?|enables?)\b|\bto (?:\w+)\b",
    r"\?",
    r"\d",
    r"%",
    r"\b(?:i\.e|e\.g|etc|et al)\b",
    r"\b(?:problem|challeng|difficult|limit|remain|lack|suffer|requir)",
    r"\b(?:recent|recently|existing|previous|prior|traditional|current|popular|widely)\b",
    r"\b(?:theor|bound|converg|provabl|guarantee)",
)
_CUE_PATTERNS: Final = tuple(re.compile(cue) for cue in _CUES)
_PROPOSES: Final = (0, 1, 2, 3)
"""Cue phrases of sentences that state the contribution."""


@dataclass(frozen=True)
class Abstract:
    """Counts of one abstract with S sentences and V distinct words."""

    words: list[list[int]]
    """Word numbers of each sentence, in order."""
    vocabulary: list[str]
    """Stems, V."""
    counts: Array
    """(S, V) counts of words in sentences."""
    titled: Array
    """(V,) whether a word is in the title."""
    cues: Array
    """(S, cues) presence of cue phrases, 0 or 1."""
    lengths: Array
    """(S,) number of white-space-separated words."""
    shapes: Array
    """(S, 5) commas, brackets, colons, quotes, letters per word."""
    names: Array
    """(V,) whether a word ever has a capital or a digit inside."""
    title: list[str]
    """Stems of the title, in order."""
    called: frozenset[str]
    """Stems of the name before a colon in the title."""


def read(title: str, parts: Sequence[str]) -> Abstract:
    """Return the counts of an abstract of at least one sentence."""
    numbers: dict[str, int] = {}
    words: list[list[int]] = []
    names: dict[int, float] = {}
    for part in parts:
        words.append(
            [numbers.setdefault(strip_suffix(token), len(numbers)) for token in tokens(part)]
        )
        for match in _NAMED.findall(part):
            for token in tokens(match):
                place = numbers.get(strip_suffix(token))
                if place is not None:
                    names[place] = 1.0
    size = max(1, len(numbers))
    counts = np.zeros((len(parts), size))
    for place, row in enumerate(words):
        for word in row:
            counts[place, word] += 1.0
    head = [strip_suffix(token) for token in tokens(title)]
    titled = np.zeros(size)
    for word in head:
        if word in numbers:
            titled[numbers[word]] = 1.0
    lower = [part.lower() for part in parts]
    return Abstract(
        words,
        list(numbers) or [""],
        counts,
        titled,
        np.array(
            [[float(cue.search(part) is not None) for cue in _CUE_PATTERNS] for part in lower]
        ),
        np.array([float(len(part.split())) for part in parts]),
        np.array([_shape(part) for part in parts]),
        np.array([names.get(place, 0.0) for place in range(size)]),
        head,
        frozenset(strip_suffix(token) for token in tokens(title.split(":", maxsplit=1)[0]))
        if ":" in title
        else frozenset(),
    )


_NAMED = re.compile(r"\b[A-Za-z]*[a-z][A-Z]\w*|\b[A-Z]{2,}\w*|\b\w+-?\d\w*")


def _shape(part: str) -> list[float]:
    return [
        float(part.count(",")),
        float(part.count("(")),
        float(part.count(":") + part.count(";")),
        float(part.count('"') + part.count("“")),
        len(part) / (1.0 + part.count(" ")),
    ]


def grams(words: Sequence[int], vocabulary: Sequence[str]) -> list[int]:
    """Return the buckets of a sentence's words and bigrams, each once, sorted."""
    found = {bucket(vocabulary[word], GRAMS) for word in words}
    found.update(
        bucket(f"{vocabulary[one]} {vocabulary[two]}", GRAMS) for one, two in pairwise(words)
    )
    return sorted(found)


def rarity(abstract: Abstract, table: Array) -> Array:
    """Return the idf of each word of `abstract`, (V,); function words weigh almost nothing."""
    return table[places(abstract)]


def places(abstract: Abstract) -> NDArray[np.int64]:
    """Return the hash bucket of each word of `abstract`, (V,)."""
    return np.array([bucket(word, BUCKETS) for word in abstract.vocabulary])


def word_features(abstract: Abstract, idf: Array) -> Array:
    """Return the features of each word of an abstract, (V, features)."""
    present = abstract.counts > 0
    sentences = len(abstract.counts)
    total = abstract.counts.sum(axis=0)
    spread = present.sum(axis=0)
    first = present.argmax(axis=0)
    last = sentences - 1 - present[::-1].argmax(axis=0)
    purpose = abstract.cues[:, list(_PROPOSES)]
    said = [(present & (purpose[:, cue] > 0)[:, None]).any(axis=0) for cue in range(4)]
    any_purpose = purpose.any(axis=1)
    lead = any_purpose.argmax() if any_purpose.any() else sentences - 1
    beside = np.zeros(len(abstract.vocabulary))
    for row in abstract.words:
        for one, two in pairwise(row):
            beside[one] += abstract.titled[two]
            beside[two] += abstract.titled[one]
    weights = abstract.counts * idf
    norms = np.sqrt((weights * weights).sum(axis=1)) + 1e-9
    heading = idf * abstract.titled
    likeness = (weights @ heading) / norms / (np.sqrt((heading * heading).sum()) + 1e-9)
    near = (present * likeness[:, None]).max(axis=0)
    columns = [
        np.log1p(total),
        total / max(1.0, float(abstract.counts.sum())) * 100,
        spread / sentences,
        first.astype(float),
        first / sentences,
        last / sentences,
        abstract.titled,
        idf,
        idf * np.log1p(total),
        *(row.astype(float) for row in said),
        present[lead].astype(float),
        present[0].astype(float),
        abstract.names,
        beside,
        beside / np.maximum(1.0, total),
        near,
        np.array([float(len(word)) for word in abstract.vocabulary]),
        np.array([float(word in RANKER_STOP_WORDS) for word in abstract.vocabulary]),
        np.array([float(word in abstract.called) for word in abstract.vocabulary]),
        np.full(len(abstract.vocabulary), float(sentences)),
        np.full(len(abstract.vocabulary), float(abstract.titled.sum())),
    ]
    return rounded(np.stack(columns, axis=1))


def rounded(values: Array) -> Array:
    """Return values rounded to thousandths."""
    return np.round(values, 3)


def sentence_features(abstract: Abstract, idf: Array, likely: Array, linear: Array) -> Array:
    """Return the features of each sentence, (S, features).

    Args:
        abstract: the counts.
        idf: (V,) rarity of its words.
        likely: (V,) probability of each word to be in a summary.
        linear: (S, models) scores of the linear models for each sentence.
    """
    counts, titled = abstract.counts, abstract.titled
    sentences = len(counts)
    places = np.arange(sentences, dtype=float)
    present = (counts > 0).astype(float)
    size = np.maximum(1.0, counts.sum(axis=1))
    weights = np.log1p(counts) * idf
    norms = np.sqrt((weights * weights).sum(axis=1)) + 1e-9
    unit = weights / norms[:, None]
    heading = idf * titled
    mass = heading.sum() + 1e-9
    centre = unit.sum(axis=0)
    alike = unit @ unit.T
    others = (alike.sum(axis=1) - 1.0) / max(1, sentences - 1)
    np.fill_diagonal(alike, 0.0)
    title_cosine = unit @ heading / (np.sqrt((heading * heading).sum()) + 1e-9)
    covered = present @ heading / mass
    gain = np.minimum(counts, 1.0) @ likely
    expected = max(6.0, min(30.0, float(np.sort(likely)[::-1][:40].sum()) * 1.3))
    content = present @ (likely * (idf > np.median(idf)))
    pairs, runs = _title_pairs(abstract)
    bound = np.array([_bound(row, likely) for row in abstract.words])
    base = {
        "cosine": title_cosine,
        "covered": covered,
        "focus": counts @ heading / (counts @ idf + 1e-9),
        "centre": unit @ centre / (np.sqrt((centre * centre).sum()) + 1e-9),
        "gain": gain,
        "f1": 2 * gain / (size + expected),
        "f20": 2 * gain / (size + 20.0),
        "mean": gain / size,
        "bound": bound / (size + expected),
        "content": content,
        **{f"linear{n}": linear[:, n] for n in range(linear.shape[1])},
    }
    purpose = abstract.cues[:, list(_PROPOSES)].any(axis=1)
    columns: list[Any] = [
        places,
        places / max(1, sentences - 1),
        sentences - 1 - places,
        np.full(sentences, float(sentences)),
        abstract.lengths,
        size,
        size / size.mean(),
        others,
        alike.max(axis=1),
        counts @ idf / size,
        pairs,
        runs,
        present @ abstract.names,
        np.array(
            [
                float(bool(abstract.called & {abstract.vocabulary[w] for w in row}))
                for row in abstract.words
            ]
        ),
        np.full(sentences, float(len(abstract.title))),
        np.full(sentences, expected),
        np.full(sentences, covered.max()),
        np.cumsum(purpose) - purpose,
        places - (purpose.argmax() if purpose.any() else -1),
        abstract.shapes,
        abstract.cues,
        *base.values(),
        *(_ranks(values) for values in base.values()),
        *(values - values.max() for values in base.values()),
        *(_beside(base[name], step) for name in ("cosine", "f1", "linear0") for step in (-1, 1)),
        _beside(abstract.cues[:, :8], -1),
        _beside(abstract.cues[:, :8], 1),
        _beside(size, -1),
        _beside(size, 1),
    ]
    return rounded(np.concatenate([c.reshape(sentences, -1) for c in columns], axis=1))


def _bound(row: Sequence[int], likely: Array) -> float:
    """Return the share of a sentence in likely bigrams."""
    return sum(float(min(likely[one], likely[two])) for one, two in pairwise(row))


def _title_pairs(abstract: Abstract) -> tuple[Array, Array]:
    """Return each sentence's share of title bigrams, and its longest common run with the title."""
    wanted = set(pairwise(abstract.title))
    shares: list[float] = []
    runs: list[float] = []
    for row in abstract.words:
        stems = [abstract.vocabulary[word] for word in row]
        hits = [pair in wanted for pair in pairwise(stems)]
        shares.append(sum(hits) / max(1, len(wanted)))
        longest = run = 0
        for hit in hits:
            run = run + 1 if hit else 0
            longest = max(longest, run)
        runs.append(float(longest))
    return np.array(shares), np.array(runs)


def _ranks(values: Array) -> Array:
    order = np.argsort(-rounded(values), kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values))
    return ranks


def _beside(values: Array, step: int) -> Array:
    """Return the values of the sentence `step` further on; -1 without one."""
    moved = np.full_like(values, -1.0)
    if step < 0:
        moved[1:] = values[:-1]
    else:
        moved[:-1] = values[1:]
    return moved
