"""Interests are learned, explained to the last digit, and laid out on a page; on real papers."""

from __future__ import annotations

import importlib.util
import itertools
import json
import lzma
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.papers.library import Library
from etude.papers.ranking import Interest, rank
from etude.papers.ranking import corpus as corpora
from etude.papers.ranking.corpus import Corpus, corpus_of, learn_corpus
from etude.papers.ranking.interest import FOLLOWED, weights_of
from etude.papers.ranking.order import EXPLORED, NEAR_COPY, NO_LIKES
from etude.papers.ranking.terms import learn
from etude.papers.reader import Reader
from etude.papers.record import Announcement, Sighting
from etude.store.engine import open_store

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "paper_ranking.py"
SLICE = 1500


def sighting(row):
    return Sighting(
        row["id"],
        row["title"],
        row["abstract"],
        tuple(row["authors"]),
        tuple(row["categories"]),
        announced=date.fromisoformat(min(row["announced"])),
        announcement=Announcement.NEW,
    )


@pytest.fixture(scope="module")
def papers(shared_data):
    """The oldest real papers."""
    with lzma.open(shared_data / "papers" / "corpus.jsonl.xz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, SLICE)]


@pytest.fixture(scope="module")
def library(papers, tmp_path_factory):
    library = Library(open_store(f"sqlite:///{tmp_path_factory.mktemp('library') / 'x.sqlite3'}"))
    library.put([sighting(row) for row in papers])
    return library


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def corpus(library, folder):
    return corpus_of(library, folder=folder)


@pytest.fixture(scope="module")
def detectors(papers):
    """Papers whose titles speak of object detection."""
    return [row for row in papers if "object detection" in row["title"].lower()]


@pytest.fixture
def reader(library, request):
    return Reader(library.engine, request.node.name[:80])


@pytest.fixture(scope="module")
def interest(library, folder, detectors):
    reader = Reader(library.engine, "detection")
    for row in detectors[:6]:
        reader.like(row["id"])
    return Interest.fit(library, reader, folder=folder)


def rows_of(library, papers):
    return library.get_many([row["id"] for row in papers])


def test_three_likes_bring_others_of_the_same_topic_to_the_top(library, reader, folder, detectors):
    for row in detectors[:3]:
        reader.like(row["id"])
    interest = Interest.fit(library, reader, folder=folder)
    unseen = {row["id"] for row in detectors[3:]}
    rows = [row for page in library.since(0) for row in page]
    rows = [row for row in rows if row["id"] not in reader.opinions()]
    top = [one.row["id"] for one in rank(rows, interest, exploration=0)[:20]]
    # By chance it would be one in a hundred.
    assert len(unseen & set(top)) >= 5


def test_words_of_a_paper_sum_up_to_its_score(library, papers, interest):
    rows = rows_of(library, papers[:200])
    scores = interest.score(rows)
    for row, score in zip(rows, scores, strict=True):
        parts = interest.why(row, None)
        # 300 products of float32 weights, summed in another order.
        assert sum(weight for _, weight in parts) == pytest.approx(score, abs=1e-5)
        assert parts == sorted(parts, key=lambda part: -abs(part[1]))


def test_decisive_words_are_written_as_the_paper_writes_them(library, papers, interest):
    for row in rows_of(library, papers[:100]):
        text = " ".join(f"{row['title']} {row['abstract']}".replace("-", " ").split()).lower()
        for word, _ in interest.why(row):
            assert word in row["categories"] or word.lower().split()[0] in text
    liked, against = interest.words(10)
    assert {"detection", "object detection"} & {word.lower() for word, _ in liked}
    assert all(weight > 0 for _, weight in liked)
    assert all(weight < 0 for _, weight in against)
    assert against


def test_names_of_authors_are_no_words(library, papers, folder, reader):
    author = papers[0]["authors"][0]
    reader.like(papers[0]["id"])
    interest = Interest.fit(library, reader, folder=folder)
    row = dict(library.get(papers[1]["id"]))
    before = float(interest.score([row])[0])
    row["authors"] = [author]
    assert float(interest.score([row])[0]) == before


def test_a_dislike_lowers_its_paper_and_those_like_it(library, reader, folder, detectors, papers):
    for row in papers[:200:20]:
        reader.like(row["id"])
    rows = rows_of(library, detectors)
    before = Interest.fit(library, reader, folder=folder).score(rows)
    for row in detectors[:3]:
        reader.dislike(row["id"])
    after = Interest.fit(library, reader, folder=folder).score(rows)
    assert (after[:3] < before[:3]).all()
    assert after[3:].mean() < before[3:].mean()


def test_dislikes_alone_push_down_and_bring_nothing_else_up(library, reader, folder, detectors):
    for row in detectors[:4]:
        reader.dislike(row["id"])
    interest = Interest.fit(library, reader, folder=folder)
    rows = [row for page in library.since(0) for row in page]
    scores = dict(zip((row["id"] for row in rows), interest.score(rows), strict=True))
    of_topic = np.mean([scores[row["id"]] for row in detectors[4:]])
    assert of_topic < np.mean(list(scores.values())) - 1


def test_followed_authors_and_tags_raise_papers_and_say_so(library, reader, folder, papers):
    row = library.get(papers[7]["id"])
    reader.like(papers[0]["id"])
    before = float(Interest.fit(library, reader, folder=folder).score([row])[0])
    first, *_, last = row["authors"][0].split()
    reader.follow(f"{first[0]}. {last}")
    followed = Interest.fit(library, reader, folder=folder)
    assert float(followed.score([row])[0]) == pytest.approx(before + FOLLOWED)
    assert (f"author {first[0]}. {last}", FOLLOWED) in followed.why(row)
    reader.tag(row["id"], "to read")
    tagged = Interest.fit(library, reader, folder=folder)
    assert float(tagged.score([row])[0]) > float(followed.score([row])[0])
    assert "tag to read" in dict(tagged.why(row, None))


def test_a_tag_that_a_text_names_raises_it(library, reader, folder, papers):
    reader.tag(papers[0]["id"], "Object Détection")
    interest = Interest.fit(library, reader, folder=folder)
    row = {**library.get(papers[1]["id"]), "title": "On object-detection", "abstract": "None."}
    assert "tag Object Détection" in dict(interest.why(row, None))
    row["title"] = "On object detections"
    assert "tag Object Détection" not in dict(interest.why(row, None))


def test_nothing_given_is_the_newest_first_by_shelf_and_says_so(library, reader, folder):
    assert Interest.fit(library, reader, folder=folder) is None
    rows = [row for page in library.since(0) for row in page]
    ranked = rank(rows, None, shelf_of=lambda categories: ["a" if "cs.CV" in categories else "b"])
    days = [one.row["announced"] for one in ranked]
    assert days == sorted(days, reverse=True)
    newest = [one for one in ranked if one.row["announced"] == days[0]]
    shelves = ["cs.CV" in one.row["categories"] for one in newest]
    few = min(shelves.count(True), shelves.count(False))
    assert shelves[: 2 * few] == [True, False] * few
    assert {tuple(one.why) for one in ranked} == {((NO_LIKES, 0.0),)}


def test_only_follows_is_an_interest_too(library, reader, folder, papers):
    author = papers[11]["authors"][0]
    reader.follow(author)
    rows = rows_of(library, papers[:60])
    ranked = rank(rows, Interest.fit(library, reader, folder=folder), exploration=0)
    assert author in ranked[0].row["authors"]
    assert ranked[-1].why == [(NO_LIKES, 0.0)]


def test_a_library_without_papers_has_no_interest(tmp_path):
    library = Library(open_store(f"sqlite:///{tmp_path / 'x.sqlite3'}"))
    reader = Reader(library.engine, "ada")
    reader.follow("Ada Lovelace")
    assert Interest.fit(library, reader, folder=tmp_path) is None
    assert rank([], None) == []


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_library_of_few_papers_is_enough(tmp_path, papers, count):
    library = Library(open_store(f"sqlite:///{tmp_path / 'x.sqlite3'}"))
    library.put([sighting(row) for row in papers[:count]])
    reader = Reader(library.engine, "ada")
    reader.like(papers[0]["id"])
    rows = rows_of(library, papers[:count])
    ranked = rank(rows, Interest.fit(library, reader, folder=tmp_path))
    assert sorted(one.row["id"] for one in ranked) == sorted(row["id"] for row in papers[:count])
    assert all(np.isfinite(one.score) for one in ranked)


def test_near_copies_do_not_fill_the_page(library, papers, interest, detectors):
    row = library.get(detectors[0]["id"])
    copies = [
        {**row, "id": f"9901.{number:05}", "title": f"{row['title']} {number}"}
        for number in range(30)
    ]
    ranked = rank([*copies, *rows_of(library, papers[:300])], interest, exploration=0)
    assert len(ranked) == 330
    page = interest.corpus.vocabulary.matrix([one.row for one in ranked[:20]])
    unit = page.multiply(1 / np.sqrt(page.multiply(page).sum(axis=1))).tocsr()
    likeness = (unit @ unit.T).toarray() - np.eye(20)
    assert likeness.max() < NEAR_COPY
    assert sum(one.row["id"].startswith("9901") for one in ranked[:20]) == 1
    plain = rank([*copies, *rows_of(library, papers[:300])], interest, exploration=0, diversity=0)
    assert sum(one.row["id"].startswith("9901") for one in plain[:20]) >= 15
    assert [one.score for one in plain] == sorted((one.score for one in plain), reverse=True)


def test_a_day_of_copies_only_is_shown_all_the_same(library, interest, detectors):
    row = library.get(detectors[0]["id"])
    copies = [{**row, "id": f"9901.{number:05}"} for number in range(30)]
    assert len(rank(copies, interest)) == 30


def test_exploration_is_marked_changes_with_the_day_and_takes_its_share(library, papers, interest):
    rows = rows_of(library, papers[:400])
    by_score = {one.row["id"] for one in rank(rows, interest, exploration=0)[:20]}
    seen = []
    for day in ("2026-05-01", "2026-05-02"):
        page = rank(rows, interest, seed=day)[:20]
        found = [one for one in page if one.explored]
        assert len(found) == 2
        assert all(one.why[0] == (EXPLORED, 0.0) for one in found)
        assert not by_score & {one.row["id"] for one in found}
        assert page[0].explored is False
        seen.append([one.row["id"] for one in found])
    assert seen[0] != seen[1]
    assert not any(one.explored for one in rank(rows, interest, exploration=0))


@given(data=st.data())
def test_the_order_given_makes_no_difference_and_nothing_is_lost(library, papers, interest, data):
    places = data.draw(st.lists(st.integers(0, 299), unique=True, max_size=60))
    rows = rows_of(library, [papers[place] for place in places])
    page = data.draw(st.integers(1, 70))
    options = {
        "page": page,
        "diversity": data.draw(st.sampled_from([0, 0.5, 3])),
        "exploration": data.draw(st.sampled_from([0, 0.1, 0.5, 1.0])),
        "seed": "x",
        "n_why": 0,
    }
    once = rank(rows, interest, **options)
    again = rank(sorted(rows, key=lambda row: row["title"]), interest, **options)
    assert [one.row["id"] for one in once] == [one.row["id"] for one in again]
    assert sorted(one.row["id"] for one in once) == sorted(row["id"] for row in rows)
    assert [one.explored for one in once] == [one.explored for one in again]


def test_training_twice_gives_the_same_weights(library, folder, interest):
    again = Interest.fit(library, Reader(library.engine, "detection"), folder=folder)
    assert np.array_equal(again.weights, interest.weights)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "\\frac{" * 3000,
        "<script>alert(1)</script>",
        "\u202e" + "x" * 100_000,
        "a " * 50_000,
        "\x00\ud800",
        "İstanbul ﬁne ǅ",
    ],
)
def test_hostile_texts_are_scored_and_explained(library, papers, interest, text):
    row = {**library.get(papers[0]["id"]), "title": text or "0", "abstract": text}
    (one,) = rank([row], interest)
    assert np.isfinite(one.score)
    assert sum(weight for _, weight in interest.why(row, None)) == pytest.approx(
        one.score, abs=1e-5
    )


def test_thousands_of_authors_are_no_trouble(library, papers, reader, folder):
    reader.follow("Ada Lovelace")
    interest = Interest.fit(library, reader, folder=folder)
    names = [f"Author Number{number}" for number in range(3302)]
    row = {**library.get(papers[0]["id"]), "authors": [*names, "A. Lovelace"]}
    assert interest.why(row)[0] == ("author Ada Lovelace", FOLLOWED)


# -- statistics of the library -----------------------------------------------------------------


def test_glued_words_share_their_parts_and_plurals_their_stem():
    rows = [
        {"id": str(number), "title": title, "abstract": "", "categories": ["cs.CV"]}
        for number, title in enumerate(["YOLOv8 tracks cars", "yolo tracking", "A car", "Trees"])
    ]
    vocabulary = learn(rows)
    matrix = vocabulary.matrix(rows)[:, : len(vocabulary.idf)]
    likeness = (matrix @ matrix.T).toarray()
    assert likeness[0, 1] > 0
    assert likeness[0, 2] > 0
    assert likeness[1, 2] == likeness[0, 3] == 0


def test_statistics_are_kept_in_a_file_and_learned_anew_when_the_library_grew(
    tmp_path, papers, monkeypatch
):
    library = Library(open_store(f"sqlite:///{tmp_path / 'x.sqlite3'}"))
    library.put([sighting(row) for row in papers[:100]])
    learned = []
    real = learn_corpus
    monkeypatch.setattr(
        corpora, "learn_corpus", lambda rows, show: learned.append(1) or real(rows, show)
    )
    first = corpus_of(library, folder=tmp_path)
    again = corpus_of(library, folder=tmp_path)
    assert len(learned) == 1
    assert again.vocabulary.shown == first.vocabulary.shown
    assert np.array_equal(again.vocabulary.idf, first.vocabulary.idf)
    assert (again.sample != first.sample).nnz == 0
    library.put([sighting(row) for row in papers[100:110]])
    corpus_of(library, folder=tmp_path)
    assert len(learned) == 1
    library.put([sighting(row) for row in papers[110:140]])
    assert len(corpus_of(library, folder=tmp_path).ids) == 140
    assert len(learned) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a file", None])
def test_a_damaged_file_is_written_anew(tmp_path, papers, damage):
    library = Library(open_store(f"sqlite:///{tmp_path / 'x.sqlite3'}"))
    library.put([sighting(row) for row in papers[:50]])
    first = corpus_of(library, folder=tmp_path)
    (file,) = tmp_path.glob("papers-terms-*.npz")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert corpus_of(library, folder=tmp_path).ids == first.ids
    assert file.stat().st_size > len(whole) // 2
    assert not list(tmp_path.glob("*.part"))


def test_another_library_at_the_same_address_is_not_taken_for_the_old_one(tmp_path, papers):
    file = tmp_path / "x.sqlite3"
    for chosen in (papers[:60], papers[60:120]):
        library = Library(open_store(f"sqlite:///{file}"))
        library.put([sighting(row) for row in chosen])
        assert set(corpus_of(library, folder=tmp_path).ids) == {row["id"] for row in chosen}
        library.engine.dispose()
        for rest in tmp_path.glob("x.sqlite3*"):
            rest.unlink()


def test_liked_papers_are_not_among_the_others(corpus, papers):
    row = {**papers[0], "id": corpus.ids[0]}
    weights = weights_of(corpus, [row], [])
    without = replace(corpus, sample=corpus.sample[1:], ids=corpus.ids[1:])
    direction = weights_of(without, [row], [])
    assert weights / np.linalg.norm(weights) == pytest.approx(direction / np.linalg.norm(direction))


# -- the gate ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("paper_ranking", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["paper_ranking"] = module
    spec.loader.exec_module(module)
    return module


def test_the_measures_are_those_of_scikit_learn(benchmark):
    from sklearn.metrics import ndcg_score, roc_auc_score

    chosen = np.random.default_rng(0)
    for _ in range(20):
        wanted = chosen.random(200) < 0.1
        scores = chosen.random(200)
        auc, ndcg, recall, first = benchmark.measured(wanted, scores)
        assert auc == pytest.approx(roc_auc_score(wanted, scores))
        assert ndcg == pytest.approx(ndcg_score([wanted.astype(float)], [scores], k=20))
        top = np.argsort(-scores)
        assert recall == wanted[top[:20]].sum() / wanted.sum()
        assert first == 1 / (1 + np.flatnonzero(wanted[top])[0])


def test_authors_later_papers_are_found_as_the_gate_demands(benchmark, shared_data):
    """A tenth of the benchmark's readers among fewer papers; the benchmark has all of them."""
    rows = benchmark.load(shared_data / "papers" / "corpus.jsonl.xz")
    names = {case.name for case in benchmark.cases(rows)[::10]}
    own = {place for place, row in enumerate(rows) if names & set(row["authors"])}
    others = np.random.default_rng(0).choice(len(rows), 4500, replace=False)
    rows = [rows[place] for place in sorted(own | {int(place) for place in others})]
    found = benchmark.cases(rows, names)
    assert len(found) >= 15
    ours, peers = benchmark.Ours(rows), benchmark.Peers(rows)
    assert isinstance(ours.corpus, Corpus)

    def ndcg(ranker, pick):
        return np.mean(
            [benchmark.measured(case.wanted, ranker(case, pick(case))[0])[1] for case in found]
        )

    profile = ndcg(ours, lambda case: case.profile)
    assert profile >= 0.39
    assert profile > ndcg(peers.machine, lambda case: case.profile)
    assert ndcg(ours, benchmark.three_of) >= ndcg(peers.centroid, benchmark.three_of)
