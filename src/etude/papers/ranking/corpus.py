"""Corpus statistics of the library, computed once and shared by all users.

A vocabulary, and a sample of papers that serves as negative examples, are learned from the newest
papers and stored in a file of Etude's data folder. They are recomputed when the library has grown
by a fifth, or is not the one that the file describes.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sqlalchemy import func, select

from etude.core.atomic_files import replace_file
from etude.core.errors import PapersError
from etude.core.paths import home
from etude.papers.library import Library
from etude.papers.ranking.terms import MOST_PAPERS, Matrix, Row, Vocabulary, learn
from etude.store import papers as tables

if TYPE_CHECKING:
    from sqlalchemy import Table

SAMPLE = 3000
"""Size of the sample that represents all other papers."""
GROWTH = 1.2
FORMAT = 1

_paper = cast("Table", tables.Paper.__table__)


@dataclass(frozen=True)
class Corpus:
    """A vocabulary and a sample.

    Attributes:
        vocabulary: terms with their inverse document frequencies.
        sample: (at most `SAMPLE`, terms).
        ids: ids of the sample.
    """

    vocabulary: Vocabulary
    sample: Matrix
    ids: list[str]


def learn_corpus(rows: Iterator[Row], show: Callable[[int], None] | None = None) -> Corpus:
    """Compute the statistics of `rows` in one pass, deterministically."""
    chosen = random.Random(0)
    kept: list[Row] = []
    count = 0

    def watched() -> Iterator[Row]:
        nonlocal count
        for row in rows:
            place = count if count < SAMPLE else chosen.randrange(count + 1)
            if place < SAMPLE:
                kept[place : place + 1] = [row]
            count += 1
            yield row

    vocabulary = learn(watched(), show)
    kept.sort(key=lambda row: row["id"])
    return Corpus(vocabulary, vocabulary.matrix(kept), [row["id"] for row in kept])


def corpus_of(
    library: Library, *, folder: Path | None = None, show: Callable[[int], None] | None = None
) -> Corpus | None:
    """Return the statistics of `library`, from the file if it is up to date; None without papers.

    Args:
        library: the papers.
        folder: folder of the file; Etude's data folder if None.
        show: called with the number of papers read, every thousand.

    Raises:
        PapersError: the file cannot be written.
    """
    with library.engine.connect() as connection:
        count, newest = connection.execute(
            select(func.count(), func.max(_paper.c.number)).select_from(_paper)
        ).one()
        if not count:
            return None
    name = hashlib.sha256(str(library.engine.url).encode()).hexdigest()[:16]
    file = (folder or home()) / f"papers-terms-{name}.npz"
    kept = _read(file)
    if kept is not None and _still_right(library, kept[0], count):
        return kept[1]
    corpus = learn_corpus(_newest(library), show)
    facts = {"format": FORMAT, "count": count, "number": newest, "id": _id_of(library, newest)}
    try:
        _write(file, facts, corpus)
    except OSError as error:
        raise PapersError(
            f"word statistics cannot be stored in {file.parent}: {error.strerror or error}"
        ) from error
    return corpus


def _newest(library: Library) -> Iterator[Row]:
    columns = (_paper.c.id, _paper.c.title, _paper.c.abstract, _paper.c.categories)
    wanted = select(*columns).order_by(_paper.c.announced.desc(), _paper.c.id).limit(MOST_PAPERS)
    with library.engine.connect().execution_options(yield_per=1000) as connection:
        for row in connection.execute(wanted).mappings():
            yield dict(row)


def _id_of(library: Library, number: int) -> str | None:
    with library.engine.connect() as connection:
        return connection.execute(select(_paper.c.id).where(_paper.c.number == number)).scalar()


def _still_right(library: Library, facts: dict[str, Any], count: int) -> bool:
    grown = count > facts["count"] * GROWTH and facts["count"] < MOST_PAPERS
    # In a library above the limit, growth shows only in the newest number.
    renewed = count - facts["count"] > MOST_PAPERS * (GROWTH - 1)
    same = _id_of(library, facts["number"]) == facts["id"]
    return same and count >= facts["count"] and not grown and not renewed


def _write(file: Path, facts: dict[str, Any], corpus: Corpus) -> None:
    words, sample = corpus.vocabulary, corpus.sample
    texts = {
        "facts": facts,
        "stems": words.stems,
        "shown": words.shown,
        "categories": words.categories,
        "ids": corpus.ids,
    }
    file.parent.mkdir(parents=True, exist_ok=True)

    def write(aside: Path) -> None:
        with aside.open("wb") as target:  # NumPy would add a suffix to a path
            np.savez(
                target,
                texts=np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8),
                pairs=words.pairs,
                idf=words.idf,
                data=sample.data,
                indices=sample.indices,
                indptr=sample.indptr,
            )

    # Another program may read, or write its own, at the same time.
    replace_file(file, write)


def _read(file: Path) -> tuple[dict[str, Any], Corpus] | None:
    """Read the file; return None if it is absent, damaged or of another format."""
    from scipy import sparse  # pyright: ignore[reportMissingTypeStubs]

    try:
        with np.load(file, allow_pickle=False) as kept:
            texts = json.loads(kept["texts"].tobytes())
            if texts["facts"]["format"] != FORMAT:
                return None
            words = Vocabulary(
                texts["stems"], texts["shown"], kept["pairs"], kept["idf"], texts["categories"]
            )
            sample: Matrix = cast(Any, sparse).csr_matrix(
                (kept["data"], kept["indices"], kept["indptr"]),
                shape=(len(texts["ids"]), words.size),
            )
            sample.check_format()
    except Exception:  # a damaged file may raise anything, and is rewritten
        return None
    return texts["facts"], Corpus(words, sample, texts["ids"])


def rows_of(library: Library, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the known papers of `ids`, in their order."""
    return library.get_many(ids) if ids else []
