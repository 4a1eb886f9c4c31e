"""How well are a reader's next papers ranked, beside what others do?

Nobody's clicks are public, so authors stand in for readers: who wrote twelve papers on a topic
wants to see the next ones on it. A reader is an author with 12 to 60 papers and a distinctive
name: no other name in the corpus ends in the same word (without accents and case), so that two
people are hardly mixed. The first half of the papers in time is the profile; the later ones stand
among 1,000 random papers that came after the profile and are by others. No names of authors are
used. The sample that a model tells likes from is of papers before the end of the profile. All
rankers use word statistics of the whole corpus (`--vocabulary N` learns ours from the oldest N
papers instead).

Settings were chosen on every second reader ("chosen on"); "held out" are the others.

    python benchmarks/paper_ranking.py --json paper_ranking.json
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from etude.papers.ranking.corpus import SAMPLE, Corpus, learn_corpus
from etude.papers.ranking.interest import Interest, weights_of
from etude.papers.ranking.order import rank
from etude.papers.words import folded

FEWEST, MOST = 12, 60
OTHERS = 1000
PLACES = 20
MEASURES = ("AUC", "nDCG@20", "R@20", "MRR")


@dataclass(frozen=True)
class Case:
    """A reader: places in the corpus of the profile, of candidates, and of a sample of the past."""

    name: str
    profile: np.ndarray
    candidates: np.ndarray
    wanted: np.ndarray
    past: np.ndarray


def data_file() -> Path:
    chosen = os.environ.get("ETUDE_DATA")
    root = Path(__file__).resolve().parent.parent
    return Path(chosen or root.parent / "shared" / "data") / "papers" / "corpus.jsonl.xz"


def load(file: Path, most: int | None = None) -> list[dict[str, Any]]:
    """Papers in the order of their first day, then of their ids; the oldest `most`."""
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        row["announced"] = min(row["announced"])
    rows.sort(key=lambda row: (row["announced"], row["id"]))
    return rows[:most]


def cases(rows: list[dict[str, Any]], names: set[str] | None = None) -> list[Case]:
    """The readers, in alphabetical order, or those of `names`; the same for the same papers."""
    by_author: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        for author in dict.fromkeys(row["authors"]):
            by_author.setdefault(author, []).append(place)
    last = {name: folded(name.split()[-1]) for name in by_author if name.split()}
    bearers = Counter(last.values())
    found: list[Case] = []
    for name in sorted(last):
        own = by_author[name]
        distinctive = bearers[last[name]] == 1 if names is None else name in names
        if not distinctive or not FEWEST <= len(own) <= MOST:
            continue
        half = len(own) // 2
        random = np.random.default_rng(len(found))
        end = own[half - 1]
        later = np.setdiff1d(np.arange(end + 1, len(rows)), own)
        past = np.setdiff1d(np.arange(end), own)
        if len(later) < OTHERS or len(past) < OTHERS:
            continue
        others = random.choice(later, OTHERS, replace=False)
        sample = random.choice(past, min(SAMPLE, len(past)), replace=False)
        candidates = np.concatenate([np.array(own[half:]), others])
        wanted = np.arange(len(candidates)) < len(own) - half
        found.append(Case(name, np.array(own[:half]), candidates, wanted, np.sort(sample)))
    return found


def measured(wanted: np.ndarray, scores: np.ndarray) -> tuple[float, float, float, float]:
    """AUC, nDCG@20, recall@20, reciprocal rank of the first; equal scores fall to the others."""
    order = np.lexsort((wanted, -scores))
    return of_order(wanted[order])


def of_order(hits: np.ndarray) -> tuple[float, float, float, float]:
    """The measures of candidates in their order."""
    many = int(hits.sum())
    places = np.flatnonzero(hits)
    auc = 1 - float((places - np.arange(many)).sum()) / (many * (len(hits) - many))
    gain = 1 / np.log2(np.arange(2, PLACES + 2))
    top = hits[:PLACES]
    ndcg = float((top * gain[: len(top)]).sum() / gain[: min(many, PLACES)].sum())
    return auc, ndcg, float(top.sum()) / many, 1 / float(places[0] + 1)


class Ours:
    """Etude's own interest model on the protocol."""

    def __init__(self, rows: list[dict[str, Any]], vocabulary: int | None = None) -> None:
        newest_first = reversed(rows[:vocabulary])
        self.rows = rows
        self.corpus = learn_corpus(iter(newest_first), _told("words"))
        self.matrix = self.corpus.vocabulary.matrix(rows)

    def corpus_for(self, case: Case) -> Corpus:
        """The corpus as it was for a reader: the sample is of the past."""
        ids = [self.rows[place]["id"] for place in case.past]
        return replace(self.corpus, sample=self.matrix[case.past], ids=ids)

    def weights(self, case: Case, liked: np.ndarray, disliked: np.ndarray | None = None) -> Any:
        """Learned weights of terms."""
        pick = [self.rows[place] for place in liked]
        drop = [self.rows[place] for place in (disliked if disliked is not None else [])]
        return weights_of(self.corpus_for(case), pick, drop)

    def __call__(self, case: Case, liked: np.ndarray, disliked: np.ndarray | None = None) -> Any:
        """Scores of the candidates, and seconds of training."""
        weights, spent = _timed(lambda: self.weights(case, liked, disliked))
        return self.matrix[case.candidates] @ weights, spent

    def page(self, case: Case, exploration: float) -> np.ndarray:
        """Whether each paper of the page is wanted, with diversity."""
        interest = Interest(self.corpus_for(case), self.weights(case, case.profile), 1)
        rows = [self.rows[place] for place in case.candidates]
        wanted = {rows[place]["id"] for place in np.flatnonzero(case.wanted)}
        ranked = rank(rows, interest, exploration=exploration, seed=case.name, n_why=0)
        return np.array([one.row["id"] in wanted for one in ranked])

    def near_misses(self, case: Case, count: int = 5) -> np.ndarray:
        """Papers of the past that resemble the profile most and are by others."""
        center = np.asarray(self.matrix[case.profile].mean(axis=0)).ravel()
        return case.past[np.argsort(-(self.matrix[case.past] @ center), kind="stable")[:count]]


class Peers:
    """What others do, on the TF-IDF that arxiv-sanity-lite uses, with 60,000 terms."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = [f"{row['title']} {row['abstract']}" for row in rows]
        vectorizer = TfidfVectorizer(
            strip_accents="unicode",
            stop_words="english",
            token_pattern=r"(?u)\b[a-zA-Z_][a-zA-Z0-9_]+\b",
            ngram_range=(1, 2),
            max_features=60_000,
            max_df=0.1,
            min_df=min(5, max(1, len(rows) // 2000)),
            sublinear_tf=True,
            dtype=np.float32,
        )
        self.matrix = vectorizer.fit_transform(texts).tocsr()
        self.titles = vectorizer.transform(row["title"] for row in rows).tocsr()

    def centroid(self, case: Case, liked: np.ndarray) -> Any:
        """Cosine to the mean of what was liked."""
        center, spent = _timed(lambda: np.asarray(self.matrix[liked].mean(axis=0)).ravel())
        return self.matrix[case.candidates] @ center, spent

    def nearest(self, case: Case, liked: np.ndarray) -> Any:
        """Cosine to the nearest of what was liked."""
        return (self.matrix[case.candidates] @ self.matrix[liked].T).toarray().max(axis=1), 0.0

    def titles_of_last(self, case: Case, liked: np.ndarray) -> Any:
        """The last five titles as a query."""
        center = np.asarray(self.titles[liked[-5:]].mean(axis=0)).ravel()
        return self.matrix[case.candidates] @ center, 0.0

    def machine(self, case: Case, liked: np.ndarray) -> Any:
        """A linear support vector machine, as arxiv-sanity-lite has it."""
        from sklearn.svm import LinearSVC

        def fit() -> np.ndarray:
            places = np.concatenate([liked, case.past])
            machine = LinearSVC(C=0.02, class_weight="balanced", max_iter=10_000, tol=1e-4)
            machine.fit(self.matrix[places], np.arange(len(places)) < len(liked))
            return machine.coef_.ravel()

        weights, spent = _timed(fit)
        return self.matrix[case.candidates] @ weights, spent


def three_of(case: Case) -> np.ndarray:
    """Three papers of the profile, by chance but always the same."""
    return np.sort(np.random.default_rng(len(case.profile)).choice(case.profile, 3, replace=False))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _told(what: str) -> Callable[[int], None]:
    def show(count: int) -> None:
        if count % 10_000 == 0:
            print(f"  {what}: {count:,} papers read", flush=True)

    return show


def interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Mean difference over readers and its 95 % interval: paired bootstrap, 10,000 samples."""
    difference = first - second
    random = np.random.default_rng(0)
    means = difference[random.integers(0, len(difference), (10_000, len(difference)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def evaluate(
    found: list[Case], ours: Ours, peers: Peers, *, pages: bool = False
) -> dict[str, tuple[np.ndarray, list[float]]]:
    """Measures of each ranker, (readers, 4), and seconds of training."""
    random = np.random.default_rng(0)
    rankers: dict[str, Callable[[Case], Any]] = {
        "random": lambda case: (random.random(len(case.candidates)), 0.0),
        "last 5 titles": lambda case: peers.titles_of_last(case, case.profile),
        "nearest liked paper": lambda case: peers.nearest(case, case.profile),
        "centroid": lambda case: peers.centroid(case, case.profile),
        "LinearSVC": lambda case: peers.machine(case, case.profile),
        "Etude": lambda case: ours(case, case.profile),
        "Etude, 5 near misses disliked": lambda case: ours(
            case, case.profile, ours.near_misses(case)
        ),
        "3 likes: centroid": lambda case: peers.centroid(case, three_of(case)),
        "3 likes: LinearSVC": lambda case: peers.machine(case, three_of(case)),
        "3 likes: Etude": lambda case: ours(case, three_of(case)),
    }
    results: dict[str, tuple[np.ndarray, list[float]]] = {}
    for name, ranker in rankers.items():
        values: list[tuple[float, ...]] = []
        times: list[float] = []
        for case in found:
            scores, spent = ranker(case)
            values.append(measured(case.wanted, scores))
            times.append(spent)
        results[name] = np.array(values), times
        _line(name, *results[name])
    for name, exploration in (("Etude, page", 0.0), ("Etude, page with exploration", 0.1)):
        if pages:
            values = [of_order(ours.page(case, exploration)) for case in found]
            results[name] = np.array(values), [0.0]
            _line(name, *results[name])
    return results


def _line(name: str, values: np.ndarray, times: list[float]) -> None:
    means = "  ".join(f"{value:7.3f}" for value in values.mean(axis=0))
    halves = f"{values[::2, 1].mean():.3f} / {values[1::2, 1].mean():.3f}"
    spent = f"{1000 * statistics.median(times):6.0f} ms" if max(times) else "        –"
    print(f"{name:32} {means}   {halves:>15}  {spent}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--readers", type=int, help="only so many, spread over the alphabet")
    parser.add_argument("--vocabulary", type=int, help="learn our words from the oldest N papers")
    parser.add_argument("--pages", action="store_true", help="also whole pages with diversity")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if not data_file().exists():
        raise SystemExit(f"no papers at {data_file()}; set ETUDE_DATA")
    rows = load(data_file())
    found = cases(rows)
    if chosen.readers:
        found = found[:: max(1, len(found) // chosen.readers)][: chosen.readers]
    profile = statistics.median(len(case.profile) for case in found)
    print(f"{len(rows):,} papers, {len(found)} readers, {profile:g} papers in the median profile")
    ours, spent = _timed(lambda: Ours(rows, chosen.vocabulary))
    print(f"  words and matrix of all papers: {spent:.0f} s, {ours.corpus.vocabulary.size:,} terms")
    peers = Peers(rows)
    print(f"{'':32} {'  '.join(f'{name:>7}' for name in MEASURES)}   chosen on/held out  training")
    results = evaluate(found, ours, peers, pages=chosen.pages)
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "readers": len(found),
        "rankers": {
            name: {
                **dict(zip(MEASURES, values.mean(axis=0).tolist(), strict=True)),
                "nDCG@20 held out": float(values[1::2, 1].mean()),
                "median_ms": 1000 * statistics.median(times),
                "slowest_ms": 1000 * max(times),
            }
            for name, (values, times) in results.items()
        },
    }
    for first, second in (
        ("Etude", "LinearSVC"),
        ("Etude", "centroid"),
        ("3 likes: Etude", "3 likes: centroid"),
        ("3 likes: Etude", "3 likes: LinearSVC"),
        ("Etude, 5 near misses disliked", "Etude"),
    ):
        for part, step in (("all", slice(None)), ("held out", slice(1, None, 2))):
            pair = (results[name][0][step, 1] for name in (first, second))
            mean, low, high = interval(*pair)
            text = f"{first} − {second}, nDCG@20, {part}"
            print(f"{text:72} {mean:+.4f}  [{low:+.4f}, {high:+.4f}]")
            report[text] = [mean, low, high]
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
