"""Terms of titles and abstracts: words, pairs of neighbouring words, categories.

Words are compared without case and plural, and shown as people write them. A vocabulary is learned
from the newest papers, at most `MOST_PAPERS` of them, so a library of a million papers costs no
more memory than one of sixty thousand. Inside, a text is a row of word numbers, and a pair of words
is one 64-bit number, so that pairs are counted by sorting numbers, not by keeping strings.

A row of the matrix is log-scaled counts times inverse document frequency, brought to length one,
followed by the categories: 0.15 for each, half as much again for the primary one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from etude.papers.words import LONGEST_WORD, parts

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

MOST_PAPERS = 60_000
MOST_TERMS = 120_000
CATEGORY_WEIGHT = 0.15
PRIMARY = 1.5
_FEWEST_PAPERS = 4
_SMALL = 2000
"""Below so many papers a term may be in one paper less for each halving, down to one paper."""
_LARGEST_SHARE = 0.3
_LONGEST_TEXT = 20_000
"""Characters; the longest abstracts of arXiv have a tenth of that."""
_WORD = re.compile(r"[^\W_]{2,}")
_GAP = -1
_STOP_WORDS = """
a about above across after again all almost also although always among an and another any are
as at available based be became because become been before being below between both but by can
cannot could demonstrate demonstrates did different do does done due during each either else et
etc even ever every few for from further furthermore given had has have having hence here how
however if in indeed into is it its itself just least less made make many may might more
moreover most much must namely neither no nor not of often on once one only onto or other
others otherwise our out over own paper per perhaps propose proposed rather same several show
shows should since so some still such than that the their them then there thereby therefore
these they this those though three through throughout thus to together too toward towards two
under until up upon us use used using various very via was we well were what when where whereas
whether which while who whose why will with within without would yet you your al eg ie https
http com github www
"""
_STOP = frozenset(_STOP_WORDS.split())


def stem(word: str) -> str:
    """`word`, lower case, without the ending of a plural."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


def _kept(word: str) -> bool:
    return word not in _STOP and not word.isdigit() and len(word) <= LONGEST_WORD


def split(text: str) -> Iterable[tuple[str, str | None]]:
    """Words of `text` as written, each with its stem, or with None where it says nothing."""
    for match in _WORD.finditer(text[:_LONGEST_TEXT]):
        lower = match[0].lower()
        yield match[0], stem(lower) if _kept(lower) else None


Row = Mapping[str, Any]
"""A paper as `Library` gives it; `title`, `abstract` and `categories` are read."""


@dataclass(frozen=True)
class Vocabulary:
    """Terms, numbered: words first, then pairs, then categories.

    Attributes:
        stems: the words that are known; (words,).
        shown: how each is written most often; (words,).
        pairs: sorted; a pair of words i, j is i·2³² + j; (pairs,).
        idf: (words + pairs,); 0 for a word that is known only as part of a pair.
        categories: names of the categories.
    """

    stems: list[str]
    shown: list[str]
    pairs: NDArray[np.int64]
    idf: NDArray[np.float32]
    categories: list[str]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.stems)}

    @cached_property
    def _category_numbers(self) -> dict[str, int]:
        first = len(self.idf)
        return {name: first + number for number, name in enumerate(self.categories)}

    @property
    def size(self) -> int:
        """How many terms there are."""
        return len(self.idf) + len(self.categories)

    def matrix(self, rows: Sequence[Row]) -> csr_matrix:
        """The papers as a sparse matrix: (papers, `size`), float32."""
        from scipy.sparse import csr_matrix

        numbers = self._numbers
        indices: list[NDArray[Any]] = []
        values: list[NDArray[np.float32]] = []
        ends = [0]
        for row in rows:
            sequence, glued = _encoded(row, lambda word: numbers.get(word, _GAP))
            terms, counts = np.unique(self._terms(sequence, glued), return_counts=True)
            weights = (1 + np.log(counts)).astype(np.float32) * self.idf[terms]
            # Summed in float64: the length must not depend on the order of the terms.
            length = float(np.sqrt(np.sum(weights.astype(np.float64) ** 2)))
            named = [str(name) for name in row.get("categories") or ()]
            known = {
                self._category_numbers[name]: CATEGORY_WEIGHT * (PRIMARY if name == named[0] else 1)
                for name in reversed(named)
                if name in self._category_numbers
            }
            indices += [terms, np.array(sorted(known), dtype=terms.dtype)]
            values += [
                weights / np.float32(length or 1.0),
                np.array([known[key] for key in sorted(known)], dtype=np.float32),
            ]
            ends.append(ends[-1] + len(terms) + len(known))
        return csr_matrix(
            (
                np.concatenate([np.zeros(0, np.float32), *values]),
                np.concatenate([np.zeros(0, np.int64), *indices]),
                np.array(ends),
            ),
            shape=(len(rows), self.size),
        )

    def _terms(self, sequence: NDArray[np.int64], glued: NDArray[np.int64]) -> NDArray[np.int64]:
        words = np.concatenate([sequence[sequence >= 0], glued[glued >= 0]])
        words = words[self.idf[words] > 0] if len(words) else words
        codes = _pairs(sequence)
        if not len(self.pairs) or not len(codes):
            return words
        at = np.minimum(np.searchsorted(self.pairs, codes), len(self.pairs) - 1)
        return np.concatenate([words, at[self.pairs[at] == codes] + len(self.stems)])

    def name(self, term: int) -> str:
        """A term as people write it most often."""
        if term < len(self.stems):
            return self.shown[term]
        if term < len(self.idf):
            code = int(self.pairs[term - len(self.stems)])
            return f"{self.shown[code >> 32]} {self.shown[code & 0xFFFFFFFF]}"
        return self.categories[term - len(self.idf)]

    def written(self, row: Row) -> dict[int, str]:
        """How `row` itself writes its terms; without the parts of glued words."""
        numbers = self._numbers
        found: dict[int, str] = {}
        for text in (row["abstract"], row["title"]):
            before: tuple[int, str] | None = None
            for word, root in split(text):
                number = numbers.get(root, _GAP) if root else _GAP
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


def _encoded(row: Row, number: Callable[[str], int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Word numbers of title and abstract, gaps between; and of the parts of glued words."""
    sequence: list[int] = []
    glued: list[int] = []
    for text in (row["title"], row["abstract"]):
        for word, root in split(text):
            sequence.append(number(root) if root else _GAP)
            if not (word.islower() and word.isalpha()):
                glued += [number(part) for part in parts(word) if _kept(part)]
        sequence.append(_GAP)
    return np.array(sequence, dtype=np.int64), np.array(glued, dtype=np.int64)


def _pairs(sequence: NDArray[np.int64]) -> NDArray[np.int64]:
    left, right = sequence[:-1], sequence[1:]
    whole = (left >= 0) & (right >= 0)
    return (left[whole] << 32) + right[whole]


def learn(rows: Iterable[Row], show: Callable[[int], None] | None = None) -> Vocabulary:
    """Learn a vocabulary from papers, the newest `MOST_PAPERS` of which the caller gives.

    Args:
        rows: read once.
        show: is told every thousand papers how many were read.
    """
    numbers: dict[str, int] = {}
    written: list[dict[str, int]] = []
    categories: dict[str, int] = {}
    word_runs: list[NDArray[np.int64]] = []
    pair_runs: list[NDArray[np.int64]] = []
    count = 0

    def number(root: str) -> int:
        found = numbers.get(root)
        if found is None:
            found = numbers[root] = len(numbers)
            written.append({})
        return found

    for row in rows:
        sequence, glued = _encoded(row, number)
        for word, root in split(row["title"] + "\n" + row["abstract"]):
            if root:
                forms = written[numbers[root]]
                forms[word] = forms.get(word, 0) + 1
        word_runs.append(np.unique(np.concatenate([sequence[sequence >= 0], glued])))
        pair_runs.append(np.unique(_pairs(sequence)))
        for name in row.get("categories") or ():
            categories[str(name)] = categories.get(str(name), 0) + 1
        count += 1
        if count % 1000 == 0:
            if show:
                show(count)
            if count % 10_000 == 0:
                pair_runs = [np.concatenate(pair_runs)]
    fewest = max(1, min(_FEWEST_PAPERS, _FEWEST_PAPERS - int(np.log2(_SMALL / max(count, 1)))))
    empty = np.zeros(0, np.int64)
    in_papers = np.bincount(np.concatenate([empty, *word_runs]), minlength=len(numbers))
    most = max(1, int(_LARGEST_SHARE * count)) if count >= 10 else count
    usable = (in_papers >= fewest) & (in_papers <= most)
    codes, of_codes = np.unique(np.concatenate([empty, *pair_runs]), return_counts=True)
    # Parts of pairs must be words that are kept or at least common enough to be known.
    common = in_papers >= fewest
    chosen = (of_codes >= fewest) & (of_codes <= most)
    codes, of_codes = codes[chosen], of_codes[chosen]
    left, right = codes >> 32, codes & 0xFFFFFFFF
    room = max(0, MOST_TERMS - int(usable.sum()))
    if len(codes) > room:
        # By papers, then by number, so that the same papers give the same vocabulary.
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
        [_usual(written[word], by_number[word]) for word in words],
        pairs[order],
        idf,
        sorted(name for name, papers in categories.items() if papers >= fewest)[:500],
    )


def _usual(forms: dict[str, int], otherwise: str) -> str:
    """The most frequent form; a capital at the start of a sentence is no form of its own."""
    if not forms:
        return otherwise
    folded: dict[str, int] = {}
    for form, times in forms.items():
        plain = form.lower() if form.istitle() and form.lower() in forms else form
        folded[plain] = folded.get(plain, 0) + times
    return max(folded.items(), key=lambda pair: (pair[1], pair[0]))[0]
