"""Retrieval metrics: recall, reciprocal rank and NDCG of ranked documents.

    recall@k   share of queries with a relevant document among the first k
    MRR@k      mean of 1 / rank of the first relevant document, 0 beyond k
    NDCG@k     Σ rel_i / log2(i + 1) over the first k, divided by its largest possible value;
               relevance is 0 or 1 (Järvelin and Kekäläinen 2002)

Of a query with several relevant documents, recall@k here is a hit (sentence-transformers calls it
accuracy@k), not the share of its documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Queries that are scored together; their scores take BLOCK × documents floats."""
MISSED = 2**62
"""Rank of a document that was not found, after all others."""


def ranks(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    relevant: NDArray[np.bool_] | None = None,
    *,
    query_groups: NDArray[np.int64] | None = None,
    document_groups: NDArray[np.int64] | None = None,
    own: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Return, of each query, the ranks of its relevant documents, ascending, the best being 1.

    Documents are ranked by dot product; of equal scores, the relevant one comes last, so that a
    model which maps everything to one point finds nothing.

    Args:
        queries: (Q, d).
        documents: (D, d).
        relevant: (Q, D); or None, and a document is relevant if its group is the query's.
        query_groups: (Q,).
        document_groups: (D,).
        own: (Q,) index of the document that is the query itself and is left out; −1 for none.
    """
    found: list[NDArray[np.int64]] = []
    for first in range(0, len(queries), BLOCK):
        block = queries[first : first + BLOCK]
        scores = block.astype(np.float64) @ documents.T.astype(np.float64)
        for row, score in enumerate(scores):
            query = first + row
            if relevant is not None:
                wanted = relevant[query].copy()
            else:
                assert query_groups is not None and document_groups is not None, "one of the two"
                wanted = document_groups == query_groups[query]
            if own is not None and own[query] >= 0:
                wanted[own[query]] = False
                score[own[query]] = -np.inf
            order = np.lexsort((wanted, -score))
            found.append(np.flatnonzero(wanted[order]) + 1)
    return found


def reranked(
    scores: NDArray[np.floating[Any]], relevant: NDArray[np.bool_], missed: int = 0
) -> NDArray[np.int64]:
    """Return the ranks of a query's relevant documents among candidates, ascending.

    Of equal scores, the relevant document comes last. A relevant document that is not among the
    candidates has the rank `MISSED`.

    Args:
        scores: (C,) of the candidates.
        relevant: (C,)
        missed: relevant documents that are no candidates.
    """
    order = np.lexsort((relevant, -scores))
    hits = np.flatnonzero(relevant[order]) + 1
    return np.concatenate([hits, np.full(missed, MISSED)]).astype(np.int64)


def recall(found: list[NDArray[np.int64]], k: int) -> float:
    """Return recall@k, 0 to 1; queries without a relevant document are left out."""
    return _mean(float(r[0] <= k) for r in found if len(r))


def reciprocal_rank(found: list[NDArray[np.int64]], k: int) -> float:
    """Return MRR@k, 0 to 1."""
    return _mean(1.0 / float(r[0]) if r[0] <= k else 0.0 for r in found if len(r))


def ndcg(found: list[NDArray[np.int64]], k: int) -> float:
    """Return NDCG@k, 0 to 1."""
    return _mean(
        float(np.sum(1 / np.log2(r[r <= k] + 1)))
        / float(np.sum(1 / np.log2(np.arange(1, min(len(r), k) + 1) + 1)))
        for r in found
        if len(r)
    )


def _mean(values: Iterator[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else float("nan")
