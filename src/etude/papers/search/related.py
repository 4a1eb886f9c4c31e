"""Papers like a paper: by embeddings where there are some, else by its most telling words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import PapersError
from etude.papers.search import embed
from etude.papers.search.compile import TITLE_WEIGHT, Compiler
from etude.papers.search.folder import IndexProgress, writing
from etude.papers.search.text import plain, stems
from etude.papers.search.vectors import Vectors, checksum

if TYPE_CHECKING:
    from tantivy import Schema, Searcher

    from etude.papers.library import Library

MOST_VECTORS = 100_000
"""The newest papers that are embedded."""

TELLING_WORDS = 25
_BATCH = 64
_PAGE = 1000


def text_of(row: dict[str, Any]) -> str:
    """What of a paper is embedded."""
    return f"{plain(row['title'])}. {plain(row['abstract'])}"


def vectors_in(folder: Path) -> tuple[Vectors, Path] | None:
    """The vectors beside an index and the model that made them; None where it was not pulled."""
    model = embed.pulled()
    if model is None:
        return None
    return Vectors(folder / "vectors", embed.fingerprint(model)), model


def embed_newest(
    folder: Path,
    library: Library,
    newest: Callable[[int, int], list[str]],
    show: Callable[[IndexProgress], None] | None,
    limit: int | None,
) -> int:
    """Embed the newest papers that lack a vector of their present text, at most `limit` of them.

    `newest` gives ids from an offset on, that many. Appends every 64 papers, so a kill costs
    no more. Another process that embeds is waited for; one that refreshes is not in the way.
    """
    found = vectors_in(folder)
    if found is None:
        raise PapersError(
            f"related papers by meaning need a model: etude models pull {embed.ALIAS}"
        )
    vectors, model = found

    def waits() -> None:
        if show:
            show(IndexProgress("Waiting for another process that embeds papers"))

    embedder: embed.Embedder | None = None
    done = 0
    with writing(folder / "vectors", waits):
        known = vectors.checksums()
        seen: list[str] = []
        while len(seen) < MOST_VECTORS and (limit is None or done < limit):
            ids = newest(len(seen), min(_PAGE, MOST_VECTORS - len(seen)))
            if not ids:
                break
            seen += ids
            texts = {row["id"]: text_of(row) for row in library.get_many(ids)}
            missing = [key for key, text in texts.items() if known.get(key) != checksum(text)]
            if limit is not None:
                missing = missing[: limit - done]
            for start in range(0, len(missing), _BATCH):
                chosen = missing[start : start + _BATCH]
                embedder = embedder or embed.Embedder(model)
                written = [texts[key] for key in chosen]
                vectors.append(chosen, written, embedder.embed(written))
                done += len(chosen)
                if show:
                    show(IndexProgress("Embedding papers", done, limit))
        if len(seen) >= MOST_VECTORS:
            vectors.keep(seen)
    return done


def by_meaning(
    folder: Path, row: dict[str, Any], most: int, indexed: int
) -> list[tuple[str, float]] | None:
    """Nearest papers by cosine; None where there is no model, or few papers have vectors yet."""
    found = vectors_in(folder)
    if found is None:
        return None
    vectors, model = found
    # Of a part of the papers the nearest would be those that happen to be done.
    if len(vectors) < min(indexed, MOST_VECTORS) // 2 or not len(vectors):
        return None
    vector = vectors.vector(row["id"])
    if vector is None:
        vector = embed.Embedder(model).embed([text_of(row)])[0]
    nearest = vectors.nearest(vector, most + 1)
    return [(key, min(1.0, score)) for key, score in nearest if key != row["id"]][:most]


def by_words(
    schema: Schema, searcher: Searcher, row: dict[str, Any], most: int
) -> list[tuple[str, float]]:
    """Papers that share the words with the largest TF-IDF, as a share of this paper's own score."""
    from tantivy import Occur, Query

    title, abstract = stems(plain(row["title"])), stems(plain(row["abstract"]))
    counts = Counter([*abstract, *title, *title])
    papers = max(1, searcher.num_docs)
    weights: dict[str, float] = {}
    for term, times in counts.items():
        known = max(searcher.doc_freq(field, term) for field in ("title", "abstract"))
        # A word of this paper alone leads nowhere, and one of every other paper anywhere.
        if 1 < known <= papers / 2 + 1 and not term.isdigit():
            weights[term] = (1 + math.log(times)) * math.log(papers / known + 1)
    telling = sorted(weights, key=lambda term: (-weights[term], term))[:TELLING_WORDS]
    if not telling:
        return []
    clauses: list[tuple[Occur, Query]] = []
    for term in telling:
        boost = 1 + math.log(counts[term])
        for field, weight in (("title", TITLE_WEIGHT), ("abstract", 1.0)):
            query = Query.term_query(schema, field, term, "freq")
            clauses.append((Occur.Should, Query.boost_query(query, boost * weight)))
    query = Query.boolean_query(clauses)
    hits = searcher.search(query, most + 1, count=False).hits
    own = searcher.search(
        Query.boolean_query(
            [(Occur.Must, Compiler(schema, searcher).paper(row["id"]).query), (Occur.Must, query)]
        ),
        1,
        count=False,
    ).hits
    best = max([score for score, _ in [*hits, *own]], default=1.0) or 1.0
    found = [(searcher.doc(address).get_first("id"), score / best) for score, address in hits]
    return [(str(key), score) for key, score in found if key != row["id"]][:most]
