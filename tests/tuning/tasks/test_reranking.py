"""Reranking on MiniLM's real weights: the loss, the measures, predictions, and other programs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from etude.core.errors import RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.evaluation import evaluate_run
from etude.tuning.metrics.retrieval import ndcg, recall, reciprocal_rank
from etude.tuning.objectives.listwise import Listwise, first_stage_ranks, reranked_ranks
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.embedding import plain_sample

COUNTRIES = {
    "Oslo": "Norway",
    "Lima": "Peru",
    "Cairo": "Egypt",
    "Delhi": "India",
    "Quito": "Ecuador",
    "Hanoi": "Vietnam",
    "Dakar": "Senegal",
    "Sofia": "Bulgaria",
    "Riga": "Latvia",
    "Minsk": "Belarus",
}


@pytest.fixture(scope="module")
def minilm():
    from etude.tuning.models.pull import pull

    return pull("minilm")


@pytest.fixture(scope="module")
def run(minilm, tmp_path_factory):
    """Questions on ten cities; by its words, every answer fits every question."""
    folder = tmp_path_factory.mktemp("cities")
    rows = [
        {
            "question": f"in which country is {city}? ({number})",
            "answer": f"the country is {COUNTRIES[city]}",
        }
        for number, city in enumerate(list(COUNTRIES) * 6)
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    recipe = {
        "name": "cities",
        "task": "reranking",
        "model": {"id": str(minilm), "dtype": "float32"},
        "adapter": {"rank": 8, "alpha": 16},
        "quant": {"kind": "none"},
        "data": {
            "train": str(data),
            "text": "question",
            "positive": "answer",
            "eval_fraction": 0.3,
            "max_length": 32,
            "candidates": 10,
        },
        "train": {
            "epochs": 8,
            "batch_samples": 8,
            "micro_tokens": 512,
            "lr": 2e-3,
            "threads": 1,
        },
    }
    return tune(Recipe.parse(recipe), base=folder / "runs")


def test_documents_are_ranked_better_than_before_and_by_the_first_stage(run):
    summary = run.summary
    assert summary["eval_loss"] < 0.7 * summary["eval_loss_before"]
    first = summary["baselines"]["BM25"]
    for metric in ("ndcg", "mrr"):
        assert summary[metric] > max(summary[f"{metric}_before"], first[metric]), metric
    page = (run.folder / "report.html").read_text("utf-8")
    assert "Beside simple baselines" in page and "BM25" in page
    assert "documents of the first stage are ordered" in page
    data = json.loads((run.folder / "data.json").read_text("utf-8"))
    assert any("hard (BM25)" in note and "random" in note for note in data["notes"])
    measured = evaluate_run(RunFolder.open(run.folder), base=True)
    assert measured["tuned"]["ndcg"] == pytest.approx(summary["ndcg"])
    assert measured["base"]["ndcg"] == pytest.approx(summary["ndcg_before"])
    assert measured["BM25"]["ndcg"] == first["ndcg"]


PAIRS = [
    ("in which country is Oslo?", "the country is Norway"),
    ("in which country is Oslo?", "the country is Peru, " + "with some further words " * 12),
]


def test_cross_encoder_opens_the_adapter_and_gives_the_same_scores(run):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    ours = [one.score for one in load(run.folder).predict(PAIRS)]
    theirs = sentence_transformers.CrossEncoder(str(run.folder / "adapter"))
    np.testing.assert_allclose(ours, theirs.predict(PAIRS), atol=2e-6)
    base = [one.score for one in load(run.folder).predict(PAIRS, tuned=False)]
    assert abs(np.array(ours) - base).max() > 1e-3


def test_transformers_and_peft_open_the_adapter_with_the_same_scores(run, minilm):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    encoded = tokenizer(
        *map(list, zip(*PAIRS, strict=True)),
        padding=True,
        truncation=True,
        max_length=32,
        return_tensors="pt",
    )
    base = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=1)
    model = PeftModel.from_pretrained(base, str(run.folder / "adapter")).eval()
    with torch.no_grad():
        scores = model(**encoded).logits[:, 0].sigmoid()
    ours = [one.score for one in load(run.folder).predict(PAIRS)]
    np.testing.assert_allclose(ours, scores, atol=2e-6)


def test_pairs_are_scored_and_lists_of_documents_ranked(run, etude_command):
    query = PAIRS[0][0]
    documents = [f"the country is {name}" for name in COUNTRIES.values()]
    rows = [{"question": query, "answer": one} for one in documents]
    listed = {"question": query, "documents": documents}
    typed = "".join(json.dumps(row) + "\n" for row in [*rows, listed])
    done = etude_command("predict", run.folder, stdin=f"{query}\t{documents[0]}\n{typed}")
    assert done.returncode == 0, done.stderr
    tabbed, *scored, ranked = [json.loads(line) for line in done.stdout.splitlines()]
    assert tabbed == {**scored[0], "score": pytest.approx(scored[0]["score"], abs=1e-6)}
    assert [one["input"] for one in scored] == [[query, one] for one in documents]
    assert ranked["input"] == query
    ranking = ranked["ranking"]
    assert ranking[0]["document"] == documents[0]  # Norway
    scores = [one["score"] for one in ranking]
    assert scores == sorted(scores, reverse=True)
    assert sorted(one["index"] for one in ranking) == list(range(10))
    for one in ranking:
        assert one["document"] == documents[one["index"]]
        assert one["score"] == pytest.approx(scored[one["index"]]["score"], abs=1e-6)
    bad = etude_command(
        "predict", run.folder, stdin=json.dumps({"question": "a", "documents": []}) + "\nalone\n"
    )
    assert bad.returncode == 2
    assert "standard input:1: column 'documents' must be a list of texts" in bad.stderr
    assert "input 2 must be two texts with a tab between them" in bad.stderr


def group(ranks, *lengths):
    from dataclasses import replace

    first, *rest = [
        plain_sample([101, *range(2000 + n, 2000 + n + length), 102], "row")
        for n, length in enumerate(lengths)
    ]
    return replace(first, label=ranks, candidates=tuple(rest))


def test_the_loss_is_cross_entropy_over_a_querys_documents(minilm):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=1).double().eval()
    samples = [group((0,), 3, 5, 2), group((2, 1, 0), 4, 6, 3, 7)]
    layout = Layout(packed=False, length_multiple=8)
    loss = Listwise().loss(model, Batch(samples, layout), {})
    scores = []
    for sample in samples:
        alone = [model(input_ids=torch.tensor(s.input_ids[None]).long()) for s in sample.sides]
        scores.append(torch.cat([one.logits[0] for one in alone]))
    one = torch.nn.functional.cross_entropy(scores[0][None], torch.tensor([0]))
    two = -scores[1].softmax(0)[:2].sum().log()
    assert loss.total.item() == pytest.approx((one + two).item(), rel=1e-9)
    # The scores that rank are those of the same sides, in float32.
    for made, expected in zip(loss.outputs, scores, strict=True):
        np.testing.assert_allclose(made, expected.detach(), rtol=1e-5, atol=1e-6)


def test_measures_over_candidates_are_those_of_scikit_learn():
    from sklearn.metrics import ndcg_score

    generator = np.random.default_rng(1)
    samples, outputs, truth, scored = [], [], [], []
    for _ in range(50):
        total = int(generator.integers(1, 5))
        hits = int(generator.integers(0, total + 1))
        others = 14
        ranks = (*range(1, hits + 1), *[0] * (total - hits))
        sides = max(1, hits) + others
        samples.append(group(ranks, *[2] * sides))
        scores = generator.normal(size=sides)
        outputs.append(scores)
        # All candidates, and after them the documents that were missed.
        shown = scores[max(1, hits) - hits :]
        truth.append([1] * hits + [0] * others + [1] * (total - hits))
        scored.append([*shown, *(-100.0 - n for n in range(len(truth[-1]) - len(shown)))])
    found = reranked_ranks(samples, outputs)
    exact = []
    for wanted, scores, ranks in zip(truth, scored, found, strict=True):
        value = ndcg_score([wanted], [scores], k=10)
        assert ndcg([ranks], 10) == pytest.approx(value)
        order = np.argsort(-np.asarray(scores))
        first = 1 + int(np.flatnonzero(np.asarray(wanted)[order])[0])
        exact.append(first)
        assert reciprocal_rank([ranks], 10) == pytest.approx(1 / first if first <= 10 else 0)
    assert recall(found, 10) == np.mean([first <= 10 for first in exact])
    known = first_stage_ranks([group((3, 12, 0), 2, 2)])
    ideal = sum(1 / np.log2(n + 1) for n in (1, 2, 3))
    assert ndcg(known, 10) == pytest.approx(1 / np.log2(4) / ideal)


def test_a_model_that_gives_one_score_to_all_ranks_right_documents_last():
    sample = group((1,), *[2] * 15)
    found = reranked_ranks([sample], [np.zeros(15)])
    assert list(found[0]) == [15]


def test_more_hard_negatives_than_negatives_are_refused():
    fields = {"task": "reranking", "data": {"train": "x", "negatives": 2, "hard_negatives": 3}}
    with pytest.raises(RecipeError, match=r"data\.hard_negatives 3 are part of data\.negatives 2"):
        Recipe.parse(fields)


def test_an_embedding_model_finds_the_candidates(minilm, tmp_path):
    from etude.core.progress import SilentProgress
    from etude.tuning.tasks.first_stage import embedding_ranker

    fields = {
        "task": "reranking",
        "model": {"id": str(minilm), "dtype": "float32"},
        "data": {"train": "x", "first_stage": str(minilm), "max_length": 16},
        "train": {"threads": 1},
    }
    documents = ["the country is Peru", "a recipe for bread", "aspirin against headaches " * 9]
    queries = ["pills that help if my head hurts", "how do I bake?", "in which country is Lima?"]
    orders = list(embedding_ranker(Recipe.parse(fields), SilentProgress(), documents, queries))
    assert [int(order[0]) for order in orders] == [2, 1, 0]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
