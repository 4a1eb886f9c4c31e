"""First stage of a search by an embedding model: documents nearest to a query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from etude.core.progress import Progress
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.data.batch import Batch
from etude.tuning.fusion.layout import row_layout
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.objectives.contrastive import embed
from etude.tuning.tasks.embedding import TRUNK, EmbeddingEncoder, plain_sample
from etude.tuning.tasks.held_out import within_context
from etude.tuning.tasks.text_classification import text_layout

BLOCK = 1024
"""Queries whose similarities are computed together."""


def embedding_ranker(
    recipe: Recipe, progress: Progress, documents: Sequence[str], queries: Sequence[str]
) -> Iterator[NDArray[np.int64]]:
    """Yield, of each query, the places of all documents by cosine similarity.

    Args:
        recipe: `data.first_stage` names the model, whose vectors are means of its tokens' states;
            `data.max_length` limits each text.
        progress: reports loading and embedding.
        documents: their texts.
        queries: their texts.

    Raises:
        ModelError: there is no such model.
    """
    spec = recipe.model.model_copy(update={"id": recipe.data.first_stage})
    loaded = load_model(spec, QuantSpec(kind="none"), progress, TRUNK)
    progress.start(
        f"Embedding with {recipe.data.first_stage}", len(documents) + len(queries), "texts"
    )
    of_documents = _vectors(loaded, recipe, documents, progress)
    of_queries = _vectors(loaded, recipe, queries, progress)
    progress.finish()
    del loaded
    for first in range(0, len(queries), BLOCK):
        scores = of_queries[first : first + BLOCK] @ of_documents.T
        yield from np.argsort(-scores, axis=1, kind="stable")


def _vectors(
    loaded: LoadedModel, recipe: Recipe, texts: Sequence[str], progress: Progress
) -> NDArray[np.float32]:
    """Return the vector of each text, of length one."""
    encoder = EmbeddingEncoder(loaded.tokenizer, within_context(loaded, recipe.data))
    layout = text_layout(recipe, loaded, per_token=True)
    limit = encoder.spec.max_length
    samples = [
        plain_sample(encoder.cut(ids, limit), f"text {number}")
        for number, ids in enumerate(encoder.token_ids(texts), start=1)
    ]
    found = np.zeros((len(samples), int(loaded.model.config.hidden_size)), dtype=np.float32)
    loaded.model.eval()
    with torch.inference_mode(), row_layout(loaded.model, layout):
        lengths = [len(sample) for sample in samples]
        for row in layout.micro_batches(lengths, recipe.train.micro_tokens):
            vectors = embed(loaded.model, Batch([samples[i] for i in row], layout))
            found[row] = vectors.float().cpu().numpy()
            progress.advance(len(row))
    return found
