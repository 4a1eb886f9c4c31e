"""Related papers: MiniLM beside transformers' BERT, vectors on disk, and the words otherwise."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from etude.core.errors import PapersError
from etude.core.paths import models_folder
from etude.papers.search import Index, embed
from etude.papers.search.related import text_of
from etude.papers.search.vectors import Vectors


@pytest.fixture(scope="module")
def papers(corpus):
    """Three subjects, 40 papers each, and 80 of anything."""
    chosen = corpus[::750]
    for subject in ("Gaussian Splatting", "Retrieval-Augmented", "Segmentation"):
        chosen += [row for row in corpus if subject in row["title"]][:40]
    return list({row["id"]: row for row in chosen}.values())


@pytest.fixture(scope="module")
def index(papers, make_library, tmp_path_factory):
    built = Index(tmp_path_factory.mktemp("related") / "papers", make_library(papers))
    built.refresh()
    return built


@pytest.fixture
def no_model(monkeypatch, tmp_path):
    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "home"))


@pytest.fixture
def minilm():
    """The folder of the pulled model."""
    folder = embed.pulled()
    if folder is None:
        pytest.skip(f"no minilm in {models_folder()}: etude models pull minilm")
    return folder


def test_by_words_most_related_papers_share_the_subject(index, papers, no_model):
    subject = "Gaussian Splatting"
    about = {row["id"] for row in papers if subject in row["title"]}
    shares = []
    for key in sorted(about)[:20]:
        found = index.related(key, 10)
        assert key not in [other for other, _ in found]
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True)
        assert all(0 < score <= 1 for score in scores)
        shares.append(sum(other in about for other, _ in found) / len(found))
    # One paper in five is about it.
    assert np.mean(shares) > 0.6


def test_a_paper_that_is_not_there_is_told_in_one_line(index, no_model):
    with pytest.raises(PapersError, match=r"paper '2699\.00001' is not in the library"):
        index.related("2699.00001")


def test_embedding_without_the_model_says_how_to_get_it(index, no_model):
    with pytest.raises(PapersError, match="etude models pull minilm"):
        index.embed()


def test_vectors_are_those_of_transformers_bert(minilm, papers):
    import torch
    from transformers import AutoTokenizer, BertModel

    texts = [text_of(row) for row in papers[:10]] + ["0", "", "word " * 600]
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = BertModel.from_pretrained(minilm).eval()
    expected = []
    for text in texts:
        encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.inference_mode():
            states = model(**encoded).last_hidden_state[0]
        expected.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    found = embed.Embedder(minilm).embed(texts)
    # float32 sums of 384 to 1,536 products, padded to another length than theirs.
    np.testing.assert_allclose(found, np.stack(expected), atol=2e-6)


def test_papers_are_embedded_once_and_then_related_by_meaning(minilm, index, papers, tmp_path):
    library = index.library
    copy = Index(tmp_path / "papers", library)
    shutil.copytree(index.folder / "index", copy.folder / "index")
    by_words = copy.related(papers[-1]["id"])
    assert copy.embed(limit=5) == 5
    # Five of 200: not yet enough to find the nearest among.
    assert copy.related(papers[-1]["id"]) == by_words
    newest = copy.search("", most=100).ids
    assert copy.embed(limit=115) == 115
    assert copy.embed(limit=0) == 0
    key = newest[0]
    found = copy.related(key, 5)
    assert found != by_words
    embedder = embed.Embedder(minilm)
    rows = {row["id"]: row for row in library.get_many(newest)}
    exact = embedder.embed([text_of(rows[one]) for one in newest])
    products = dict(zip(newest, exact @ exact[0], strict=True))
    for other, score in found:
        if other in products:
            # Each of two vectors is rounded to 1/254 of its largest number, some 0.2.
            assert score == pytest.approx(products[other], abs=0.01)
    assert found[0][1] >= max(products[one] for one in newest[1:]) - 0.01


def unit(count, seed=0):
    made = np.random.default_rng(seed).normal(size=(count, embed.WIDTH)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_vectors_on_disk_keep_nearest_neighbours(tmp_path):
    made = unit(500)
    made[1:20] = made[0] + 0.02 * np.arange(1, 20)[:, None] * made[1:20]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    vectors = Vectors(tmp_path, "model")
    ids = [f"2601.{number:05}" for number in range(500)]
    for start in range(0, 500, 64):
        part = slice(start, start + 64)
        vectors.append(ids[part], ids[part], made[part])
    found = vectors.nearest(made[0], 20)
    expected = np.argsort(-(made @ made[0]))[:20]
    assert [key for key, _ in found] == [ids[row] for row in expected]
    np.testing.assert_allclose([score for _, score in found], made[expected] @ made[0], atol=0.01)
    assert vectors.file.stat().st_size == 500 * 424


def test_a_torn_record_is_cut_off_and_a_later_one_replaces_an_earlier(tmp_path):
    made = unit(3)
    vectors = Vectors(tmp_path, "model")
    vectors.append(["a", "b"], ["a", "b"], made[:2])
    with vectors.file.open("ab") as file:
        file.write(b"c" * 100)
    again = Vectors(tmp_path, "model")
    assert len(again) == 2
    again.append(["a"], ["anew"], made[2:])
    assert len(again) == 2
    np.testing.assert_allclose(again.vector("a"), made[2], atol=0.002)
    assert again.nearest(made[2], 1)[0][0] == "a"
    assert len([key for key, _ in again.nearest(made[2], 5) if key == "a"]) == 1
    again.keep(["a"])
    assert again.vector("b") is None
    assert again.file.stat().st_size == 424


def test_a_damaged_model_is_told_in_one_line(tmp_path):
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"\0" * 50)
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 6}))
    with pytest.raises(PapersError, match="etude models pull minilm") as caught:
        embed.Embedder(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
