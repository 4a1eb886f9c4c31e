"""Term vocabulary and TF-IDF matrix: words, bigrams and categories of papers.

Words are compared without case and plural, and shown in their usual spelling. A vocabulary is
learned from at most `MOST_PAPERS` newest papers, which bounds the memory for any library.
Internally, a text is a row of word numbers and a bigram is one 64-bit number, so that bigrams are
counted by sorting numbers instead of storing strings.

A row of the matrix is log-scaled counts times inverse document frequency, normalised to length one,
followed by the categories: 0.15 for each, half as much again for the primary one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from etude.core.words import VOCABULARY_STOP_WORDS, singular
from etude.papers.words import LONGEST_WORD, parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PAPERS = 60_000
MOST_TERMS = 120_000
CATEGORY_WEIGHT = 0.15
PRIMARY = 1.5
_FEWEST_PAPERS = 4
_SMALL = 2000
"""Number of papers below which the minimum document frequency falls by one per halving."""
_LARGEST_SHARE = 0.3
LONGEST_TEXT = 20_000
"""Maximum characters of a text; the longest abstracts of arXiv have a tenth of that."""
_WORD = re.compile(r"[^\W_]{2,}")
_GAP = -1
_BATCH = 1000
_MERGED = 10
"""Number of batches whose bigrams are counted together."""
_MOST_FORMS = 400_000
"""Maximum number of cached words."""


def _kept(word: str) -> bool:
    return word not in VOCABULARY_STOP_WORDS and not word.isdigit() and len(word) <= LONGEST_WORD


def _words(text: str) -> list[str]:
    return _WORD.findall(text[:LONGEST_TEXT])


Matrix: TypeAlias = Any
"""A sparse matrix in rows, `scipy.sparse.csr_matrix`; SciPy has no type annotations."""

Row: TypeAlias = Mapping[str, Any]
"""A paper from `Library`; `title`, `abstract` and `categories` are read."""


@dataclass(frozen=True)
class Vocabulary:
    """Numbered terms: words first, then bigrams, then categories.

    Attributes:
        stems: stems of the known words; (words,).
        shown: most frequent spelling of each; (words,).
        pairs: sorted; a pair of words i, j is i·2³² + j; (pairs,).
        idf: (words + pairs,); 0 for a word known only as part of a bigram.
        categories: names of the categories.
    """

    stems: list[str]
    shown: list[str]
    pairs: NDArray[np.int64]
    idf: NDArray[np.float32]
    categories: list[str]

    @cached_property
    def _forms(self) -> _Forms:
        numbers = {word: number for number, word in enumerate(self.stems)}
        return _Forms(lambda root: numbers.get(root, _GAP))

    @cached_property
    def _category_numbers(self) -> dict[str, int]:
        first = len(self.idf)
        return {name: first + number for number, name in enumerate(self.categories)}

    @property
    def size(self) -> int:
        """Return the number of terms."""
        return len(self.idf) + len(self.categories)

    def matrix(self, rows: Sequence[Row]) -> Matrix:
        """Return the papers as a sparse matrix: (papers, `size`), float32."""
        from scipy import sparse  # pyright: ignore[reportMissingTypeStubs]

        papers, terms = self._found(rows)
        # One number per paper and term, so that sorting counts and orders them.
        codes, counts = np.unique(papers * self.size + terms, return_counts=True)
        papers, terms = np.divmod(codes, self.size)
        weights = (1 + np.log(counts)) * self.idf[terms]
        squares = np.bincount(papers, weights=weights**2, minlength=len(rows))
        weights /= np.sqrt(np.where(squares > 0, squares, 1))[papers]
        extra: list[tuple[int, int, float]] = []
        for paper, row in enumerate(rows):
            named = list(dict.fromkeys(str(name) for name in row.get("categories") or ()))
            extra += [
                (paper, number, CATEGORY_WEIGHT * (PRIMARY if name == named[0] else 1))
                for name in named
                if (number := self._category_numbers.get(name)) is not None
            ]
        found: Matrix = cast(Any, sparse).csr_matrix(
            (
                np.array([*weights, *(value for _, _, value in extra)], dtype=np.float32),
                (
                    np.array([*papers, *(paper for paper, _, _ in extra)], dtype=np.int32),
                    np.array([*terms, *(term for _, term, _ in extra)], dtype=np.int32),
                ),
            ),
            shape=(len(rows), self.size),
        )
        found.sort_indices()
        return found

    def _found(self, rows: Sequence[Row]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return each occurrence of a term: number of the paper, number of the term."""
        papers, words = self._forms.read(rows)
        numbers = self._forms.numbers()[words]
        of_pairs, codes = _pairs(papers, numbers)
        glued_in, glued = self._forms.glued_in(papers, words)
        papers, numbers = np.concatenate([papers, glued_in]), np.concatenate([numbers, glued])
        known = numbers >= 0
        papers, numbers = papers[known], numbers[known]
        used = self.idf[numbers] > 0
        papers, numbers = papers[used], numbers[used]
        if not len(self.pairs):
            return papers, numbers
        at = np.minimum(np.searchsorted(self.pairs, codes), len(self.pairs) - 1)
        kept = self.pairs[at] == codes
        return (
            np.concatenate([papers, of_pairs[kept]]),
            np.concatenate([numbers, at[kept] + len(self.stems)]),
        )

    def name(self, term: int) -> str:
        """Return the most frequent spelling of a term."""
        if term < len(self.stems):
            return self.shown[term]
        if term < len(self.idf):
            code = int(self.pairs[term - len(self.stems)])
            return f"{self.shown[code >> 32]} {self.shown[code & 0xFFFFFFFF]}"
        return self.categories[term - len(self.idf)]

    def written(self, row: Row) -> dict[int, str]:
        """Return the spellings of its terms in `row`, without parts of compound words."""
        found: dict[int, str] = {}
        for text in (row["abstract"], row["title"]):
            before: tuple[int, str] | None = None
            for word in _words(text):
                number = self._forms.number_of(word)
                if number == _GAP:
                    before = None
                    continue
                found[number] = word
                if before is not None and len(self.pairs):
                    code = (before[0] << 32) + number
                    at = int(np.searchsorted(self.pairs, code))
                    if at < len(self.pairs) and self.pairs[at] == code:
                        found[at + len(self.stems)] = f"{before[1]} {word}"
                before = number, word
        return found


class _Forms(dict[str, int]):
    """Cache of word forms: the number of each and those of its parts.

    Number 0 is a gap, between title and abstract.
    """

    def __init__(self, number: Callable[[str], int]) -> None:
        """Use `number` for the number of a stem, -1 for an ignored one."""
        super().__init__()
        self._number = number
        self.written = [""]
        self._numbers = [_GAP]
        self._glued: dict[int, list[int]] = {}

    def __missing__(self, word: str) -> int:
        self[word] = place = len(self._numbers)
        lower = word.lower()
        self.written.append(word)
        self._numbers.append(self._number(singular(lower)) if _kept(lower) else _GAP)
        if not (word.islower() and word.isalpha()):
            glued = [self._number(singular(part)) for part in parts(word) if _kept(part)]
            if glued:
                self._glued[place] = glued
        return place

    def number_of(self, word: str) -> int:
        """Return the number of a form's stem."""
        return self._numbers[self[word]]

    def numbers(self) -> NDArray[np.int64]:
        """Return the number of the stem of each form."""
        return np.array(self._numbers, dtype=np.int64)

    def read(self, rows: Sequence[Row]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return each word of title and abstract: number of the paper, number of the form."""
        if len(self) > _MOST_FORMS:
            self.clear()
            self.written, self._numbers, self._glued = [""], [_GAP], {}
        words: list[int] = []
        lengths: list[int] = []
        for row in rows:
            before = len(words)
            words += map(self.__getitem__, _words(row["title"]))
            words.append(0)
            words += map(self.__getitem__, _words(row["abstract"]))
            words.append(0)
            lengths.append(len(words) - before)
        return np.repeat(np.arange(len(rows)), lengths), np.array(words, dtype=np.int64)

    def glued_in(
        self, papers: NDArray[np.int64], words: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return each part of a compound word: number of the paper, number of the part's stem."""
        places = np.flatnonzero(np.isin(words, list(self._glued)))
        found = [
            (int(papers[place]), part)
            for place in places
            for part in self._glued[int(words[place])]
        ]
        pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]


def _pairs(
    papers: NDArray[np.int64], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each bigram: number of the paper, code of the pair."""
    left, right = numbers[:-1], numbers[1:]
    whole = (left >= 0) & (right >= 0)
    return papers[:-1][whole], (left[whole] << 32) + right[whole]


def _of_papers(
    papers: NDArray[np.int64], codes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the codes that occur, and the number of papers of each."""
    different, places = np.unique(codes, return_inverse=True)
    once = np.unique(papers * max(len(different), 1) + places) % max(len(different), 1)
    return different, np.bincount(once, minlength=len(different))


def _summed(
    runs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    empty = np.zeros(0, np.int64)
    codes = np.concatenate([empty, *(run[0] for run in runs)])
    counts = np.concatenate([empty, *(run[1] for run in runs)])
    different, places = np.unique(codes, return_inverse=True)
    return different, np.bincount(places, weights=counts, minlength=len(different)).astype(np.int64)


def learn(rows: Iterable[Row], show: Callable[[int], None] | None = None) -> Vocabulary:
    """Learn a vocabulary from papers, the newest `MOST_PAPERS` as passed by the caller.

    Args:
        rows: the papers, read once.
        show: called with the number of papers read, every thousand.
    """
    numbers: dict[str, int] = {}
    forms = _Forms(lambda root: numbers.setdefault(root, len(numbers)))
    times: list[NDArray[np.int64]] = []
    word_runs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    pair_runs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    categories: dict[str, int] = {}
    count = 0
    source = iter(rows)
    while batch := list(islice(source, _BATCH)):
        papers, words = forms.read(batch)
        stems = forms.numbers()[words]
        glued_in, glued = forms.glued_in(papers, words)
        known = stems >= 0
        every = np.concatenate([papers[known], glued_in]), np.concatenate([stems[known], glued])
        word_runs.append(_of_papers(*every))
        pair_runs.append(_of_papers(*_pairs(papers, stems)))
        if len(pair_runs) >= _MERGED:
            pair_runs = [_summed(pair_runs)]
        times.append(np.bincount(words))
        for row in batch:
            for name in dict.fromkeys(str(name) for name in row.get("categories") or ()):
                categories[name] = categories.get(name, 0) + 1
        count += len(batch)
        if show:
            show(count)
    written = _usual(forms, times, len(numbers))
    fewest = max(1, min(_FEWEST_PAPERS, _FEWEST_PAPERS - int(np.log2(_SMALL / max(count, 1)))))
    in_papers = np.zeros(len(numbers), dtype=np.int64)
    kinds, of_words = _summed(word_runs)
    in_papers[kinds] = of_words
    most = max(1, int(_LARGEST_SHARE * count)) if count >= 10 else count
    usable = (in_papers >= fewest) & (in_papers <= most)
    codes, of_codes = _summed(pair_runs)
    # Words of bigrams must be terms, or at least common enough to be known.
    common = in_papers >= fewest
    chosen = (of_codes >= fewest) & (of_codes <= most)
    codes, of_codes = codes[chosen], of_codes[chosen]
    left, right = codes >> 32, codes & 0xFFFFFFFF
    room = max(0, MOST_TERMS - int(usable.sum()))
    if len(codes) > room:
        # By document frequency, then by number, so that the vocabulary is deterministic.
        best = np.sort(np.lexsort((codes, -of_codes))[:room])
        left, right, of_codes = left[best], right[best], of_codes[best]
    words = np.flatnonzero(common)
    place = np.full(len(numbers), -1, dtype=np.int64)
    place[words] = np.arange(len(words))
    by_number = list(numbers)
    pairs = (place[left] << 32) + place[right]
    order = np.argsort(pairs)
    frequency = np.concatenate([in_papers[words], of_codes[order]])
    idf = (np.log((1 + count) / (1 + frequency)) + 1).astype(np.float32)
    idf[: len(words)][~usable[words]] = 0
    return Vocabulary(
        [by_number[word] for word in words],
        [written[word] or by_number[word] for word in words],
        pairs[order],
        idf,
        sorted(name for name, papers in categories.items() if papers >= fewest)[:500],
    )


def _usual(forms: _Forms, times: Sequence[NDArray[np.int64]], count: int) -> list[str]:
    """Return the most frequent form of each of `count` stems; "" if it was only part of a word.

    A capital at the start of a sentence is not a separate form.
    """
    total = np.zeros(len(forms.written), dtype=np.int64)
    for counts in times:
        total[: len(counts)] += counts
    seen: list[dict[str, int]] = [{} for _ in range(count)]
    numbers: list[int] = forms.numbers().tolist()
    for word, number, often in zip(forms.written, numbers, total.tolist(), strict=True):
        if number >= 0:
            plain = word.lower() if word.istitle() and word.lower() in forms else word
            seen[number][plain] = seen[number].get(plain, 0) + often
    return [max(of.items(), key=lambda pair: (pair[1], pair[0]))[0] if of else "" for of in seen]
