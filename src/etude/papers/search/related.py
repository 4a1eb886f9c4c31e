"""Related papers: by cosine of embeddings if available, else by shared rare words."""

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
"""Maximum number of newest papers that are embedded."""

TELLING_WORDS = 25
_BATCH = 64
_PAGE = 1000


def text_of(row: dict[str, Any]) -> str:
    """Return the text of a paper that is embedded."""
    return f"{plain(row['title'])}. {plain(row['abstract'])}"


def vectors_in(folder: Path) -> tuple[Vectors, Path] | None:
    """Return the vectors of an index and the folder of their model; None without the model."""
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
    """Embed up to `limit` of the newest papers without a vector of their current text.

    `newest(offset, count)` returns ids. Appends every 64 papers, the most that is lost when killed.
    Waits for another process that embeds, but not for one that refreshes.
    """
    found = vectors_in(folder)
    if found is None:
        raise PapersError(
            f"related papers by meaning need a model; fetch it with etude models pull {embed.ALIAS}"
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
    """Return nearest papers by cosine; None without a model, or if few papers have vectors."""
    found = vectors_in(folder)
    if found is None:
        return None
    vectors, model = found
    # With few vectors, the nearest would be an arbitrary subset.
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
    """Return papers that share the words of largest TF-IDF, scored relative to the paper itself."""
    from tantivy import Occur, Query

    title, abstract = stems(plain(row["title"])), stems(plain(row["abstract"]))
    counts = Counter([*abstract, *title, *title])
    papers = max(1, searcher.num_docs)
    weights: dict[str, float] = {}
    for term, times in counts.items():
        known = max(searcher.doc_freq(field, term) for field in ("title", "abstract"))
        # Words of this paper alone match nothing, and those of half the papers match anything.
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
