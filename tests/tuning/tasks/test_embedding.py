"""Embeddings on MiniLM's real weights: the loss, its gradient, retrieval, and other programs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from etude.core.errors import DataError
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.evaluation import evaluate_run
from etude.tuning.metrics.retrieval import ndcg, ranks, recall, reciprocal_rank
from etude.tuning.objectives.contrastive import Contrastive, contrastive_losses
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.embedding import plain_sample, with_positives

PADDED = Layout(packed=False, length_multiple=8)
CITIES = ("Oslo", "Lima", "Cairo", "Delhi", "Quito", "Hanoi", "Dakar", "Sofia", "Riga", "Minsk")


def pairs(path, *, negative=False):
    """Write questions with answers that share no word with them but the city's code."""
    rows = []
    for number, city in enumerate(CITIES * 6):
        row = {
            "question": f"what is the code of {city}? ({number})",
            "answer": f"{CITIES.index(city)}{CITIES.index(city)} is a number",
        }
        if negative:
            row["negative"] = f"{(CITIES.index(city) + 1) % 10} is another"
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def minilm():
    from etude.tuning.models.pull import pull

    return pull("minilm")


def fields(data, model, **sections):
    base = {
        "name": "codes",
        "task": "embedding",
        "model": {"id": str(model), "dtype": "float32"},
        "adapter": {"rank": 8, "alpha": 16},
        "quant": {"kind": "none"},
        "data": {
            "train": str(data),
            "text": "question",
            "positive": "answer",
            "eval_fraction": 0.3,
            "max_length": 32,
        },
        "train": {
            "epochs": 6,
            "batch_samples": 16,
            "micro_tokens": 256,
            "lr": 1e-3,
            "threads": 1,
        },
    }
    for name, section in sections.items():
        base[name] = {**base[name], **section}
    return base


@pytest.fixture(scope="module")
def run(minilm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("codes")
    return tune(Recipe.parse(fields(pairs(folder / "rows.jsonl"), minilm)), base=folder / "runs")


def test_texts_come_nearer_to_what_belongs_with_them(run):
    summary = run.summary
    assert summary["eval_loss"] < 0.7 * summary["eval_loss_before"]
    assert summary["recall_1"] > summary["recall_1_before"]
    assert summary["mrr"] > summary["mrr_before"]
    page = (run.folder / "report.html").read_text("utf-8")
    assert "NDCG@10" in page
    measured = evaluate_run(RunFolder.open(run.folder), base=True)
    assert measured["tuned"]["mrr"] == pytest.approx(summary["mrr"])
    assert measured["base"]["mrr"] == pytest.approx(summary["mrr_before"])


def test_sentence_transformers_opens_the_adapter_and_gives_the_same_vectors(run):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    texts = ["what is the code of Oslo?", "a longer text, which has rather more words in it"]
    ours = np.array([prediction.vector for prediction in load(run.folder).predict(texts)])
    theirs = sentence_transformers.SentenceTransformer(str(run.folder / "adapter")).encode(texts)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert TaskRecord.read(run.folder / "adapter").options["pooling"] == "mean"
    base = np.array([p.vector for p in load(run.folder).predict(texts, tuned=False)])
    assert abs(base - theirs).max() > 1e-3


def sample(anchor, positive, negative=None, label=None):
    from dataclasses import replace

    whole = plain_sample(anchor, "row")
    return replace(
        whole,
        positive=plain_sample(positive, "row"),
        negative=None if negative is None else plain_sample(negative, "row"),
        label=label,
    )


def test_the_loss_is_that_of_sentence_transformers():
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    generator = torch.Generator().manual_seed(0)
    sides = [
        torch.nn.functional.normalize(torch.randn(6, 16, generator=generator), dim=1)
        for _ in range(3)
    ]
    expected = MultipleNegativesRankingLoss(None, scale=20.0).compute_loss_from_embeddings(
        sides, None
    )
    samples = [sample([i], [i, 1], [i, 2]) for i in range(6)]
    vectors = torch.stack(sides, dim=1).flatten(0, 1)
    assert contrastive_losses(vectors, samples, 0.05).mean() == pytest.approx(
        float(expected), rel=1e-6
    )


def test_equal_texts_and_texts_of_one_class_are_no_negatives():
    vectors = torch.nn.functional.normalize(
        torch.randn(6, 8, generator=torch.Generator().manual_seed(1)), dim=1
    ).double()
    same_answer = [sample([1], [9]), sample([2], [9]), sample([3], [8])]
    losses = contrastive_losses(vectors, same_answer, 0.1)
    scores = (vectors[0] @ vectors[[1, 3, 5]].T / 0.1).exp()
    assert losses[0] == pytest.approx(float((scores.sum() / scores[:2].sum()).log()))
    classes = [sample([1], [7], label=0), sample([2], [9], label=0), sample([3], [8], label=1)]
    assert contrastive_losses(vectors, classes, 0.1)[0] == pytest.approx(float(losses[0]))


def test_the_gradient_does_not_depend_on_micro_batches(minilm):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(
        minilm, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model.train()
    samples = [sample([101, 2000 + i, 102], [101, 3000 + i, 2500 + i, 102]) for i in range(6)]
    objective = Contrastive(0.05)
    gradients = []
    for size in (6, 2):
        model.zero_grad()
        batches = [Batch(samples[i : i + size], PADDED) for i in range(0, 6, size)]
        values = objective.step_values(model, batches)
        total = 0.0
        for batch in batches:
            part = objective.loss(model, batch, values)
            part.total.backward()
            total += float(part.total.detach())
        gradients.append((total, model.encoder.layer[2].attention.self.query.weight.grad.clone()))
    (one, whole), (several, parts) = gradients
    assert several == pytest.approx(one, rel=1e-5)
    assert (whole - parts).abs().max() < 1e-5 * whole.abs().max()


def test_dropout_repeats_where_embeddings_are_computed_again(minilm):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(
        minilm, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0
    )
    model.train()
    objective = Contrastive(0.05)
    batches = [Batch([sample([101, i, 102], [101, i + 9, 102])], PADDED) for i in (2000, 2100)]
    torch.manual_seed(5)
    values = objective.step_values(model, batches)
    for batch in batches:
        kept = next(v for k, v in values.items() if str(id(batch.samples[0])) in k)
        part = objective.loss(model, batch, values)
        part.total.backward()
        torch.set_rng_state(kept.state)
        from etude.tuning.objectives.contrastive import embed

        with torch.no_grad():
            sides = batch.of([side for one in batch for side in one.sides])
            assert torch.equal(embed(model, sides), kept.vectors)


def test_retrieval_metrics_are_those_of_scikit_learn():
    from sklearn.metrics import ndcg_score

    generator = np.random.default_rng(0)
    queries = generator.normal(size=(40, 8)).astype(np.float32)
    documents = generator.normal(size=(60, 8)).astype(np.float32)
    relevant = generator.random((40, 60)) < 0.05
    relevant[:, 0] |= ~relevant.any(1)
    scores = queries.astype(np.float64) @ documents.T.astype(np.float64)
    found = ranks(queries, documents, relevant)
    assert ndcg(found, 10) == pytest.approx(ndcg_score(relevant, scores, k=10))
    best = [
        1 + int((row > row[wanted].max()).sum())
        for row, wanted in zip(scores, relevant, strict=True)
    ]
    assert recall(found, 10) == np.mean([rank <= 10 for rank in best])
    assert reciprocal_rank(found, 10) == pytest.approx(
        np.mean([1 / rank if rank <= 10 else 0 for rank in best])
    )


def test_a_model_that_maps_everything_to_one_point_finds_nothing():
    point = np.ones((50, 4), dtype=np.float32)
    groups = np.repeat(np.arange(25), 2)
    found = ranks(point, point, query_groups=groups, document_groups=groups, own=np.arange(50))
    assert recall(found, 10) == 0.0


def labelled(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_labelled_texts_are_paired_within_their_class(tmp_path):
    from etude.tuning.tasks.embedding import Embedding

    rows = [{"text": f"text {n}", "label": f"class {n % 3}"} for n in range(40)]
    rows.append({"text": "the only one", "label": "rare"})
    recipe = Recipe.parse(
        {
            "task": "embedding",
            "data": {"train": str(labelled(tmp_path / "rows.jsonl", rows)), "eval_fraction": 0.2},
        }
    )
    split = Embedding().read(recipe)
    texts = {row["text"]: row["label"] for row in rows}
    for one in [*split.train, *split.eval]:
        assert texts[one.positive] == one.label
        assert one.positive != one.text
    assert any("rows.jsonl:41" in note and "1 (" in note for note in split.notes)
    again = Embedding().read(recipe)
    assert [s.positive for s in again.train] == [s.positive for s in split.train]


def test_classes_of_one_text_each_are_an_error():
    from etude.tuning.data.schema import Sample

    samples = [Sample((), f"text {n}", f"rows:{n}", label=f"class {n}") for n in range(4)]
    with pytest.raises(DataError, match="no training text has another with the same label"):
        with_positives(samples, 0, "training", [])


def test_a_missing_or_empty_positive_names_the_row(tmp_path):
    from etude.tuning.tasks.embedding import Embedding

    file = labelled(
        tmp_path / "rows.jsonl",
        [{"text": "one", "positive": "two"}, {"text": "three", "positive": "  "}],
    )
    with pytest.raises(DataError, match=r"rows.jsonl:2: data.positive is empty"):
        Embedding().read(Recipe.parse({"task": "embedding", "data": {"train": str(file)}}))
    with pytest.raises(DataError, match=r"no column 'positve' \(data.positive\).*positive"):
        Embedding().read(
            Recipe.parse({"task": "embedding", "data": {"train": str(file), "positive": "positve"}})
        )
