"""Trains the model that chooses a sentence, and writes it where the package finds it.

    python benchmarks/train_summaries.py [--output src/etude/papers/summaries/ranker.npz]

Learns from SciTLDR's train split, and prints ROUGE on its dev split, by which the settings below
were chosen; the test split is never read (benchmarks/summaries.py does that). How rare words are is
counted over `papers/corpus.jsonl.xz`. Needs scikit-learn and rouge-score; about 5 minutes on one
core, most of it for what is learnt without a paper to say something of it (5 folds).

A piece is what would be shown: a sentence, or one over 30 words cut (`summaries/cut.py`). It is to
have the mean of ROUGE-1 and ROUGE-L against the author's summary, in standard deviations above the
other pieces of its abstract: so papers in which all do well weigh as much as others.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rouge_score import rouge_scorer
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

import scitldr
from etude.core.words import strip_suffix
from etude.papers.latex_text import latex_to_text
from etude.papers.summaries import features
from etude.papers.summaries.extractive import VERSION, pieces
from etude.papers.summaries.model import FILE, Forest, Ranker

FOLDS = 5
RIDGE = 100.0
SEEDS = 3
WORD_TREES: dict[str, Any] = {
    "max_iter": 60,
    "learning_rate": 0.12,
    "max_leaf_nodes": 16,
    "max_depth": 5,
    "min_samples_leaf": 60,
    "l2_regularization": 5.0,
}
SENTENCE_TREES: dict[str, Any] = {
    "max_iter": 150,
    "learning_rate": 0.04,
    "max_leaf_nodes": 12,
    "max_depth": 6,
    "min_samples_leaf": 40,
    "l2_regularization": 10.0,
    "max_features": 0.3,
}
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass
class Part:
    """One split, counted: P papers, S pieces in all, V words in all."""

    shown: list[list[str]]
    abstracts: list[features.Abstract]
    rarities: list[Any]
    rouge: list[Any]
    """Of each paper, (pieces, references, 3): ROUGE-1, 2 and L."""
    wanted: list[Any]
    """Of each paper, (V,) share of the references that have a word."""

    @property
    def sizes(self) -> list[int]:
        """Pieces of each paper."""
        return [len(shown) for shown in self.shown]

    @property
    def word_sizes(self) -> list[int]:
        """Different words of each paper."""
        return [len(abstract.vocabulary) for abstract in self.abstracts]


def rarities() -> Any:
    """Return (BUCKETS,) ln((N + 1) / (n + 1)) over the corpus, in twentieths."""
    file = scitldr.folder().parents[1] / "papers" / "corpus.jsonl.xz"
    if not file.is_file():
        sys.exit(f"no papers at {file}: set ETUDE_DATA")
    have = np.zeros(features.BUCKETS)
    papers = 0
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            text = f"{latex_to_text(row['title'])} {latex_to_text(row['abstract'])}"
            words = {strip_suffix(token) for token in features.tokens(text)}
            have[list({features.bucket(word, features.BUCKETS) for word in words})] += 1
            papers += 1
    return np.round(np.log((papers + 1) / (have + 1)) * 20) / 20


def counted(split: str, idf: Any) -> Part:
    """Read, cut and score a split."""
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    part = Part([], [], [], [], [])
    for paper in scitldr.read(split):
        title = latex_to_text(paper.title)
        shown = pieces(title, latex_to_text(paper.abstract))
        if not shown:
            continue
        abstract = features.read(title, shown)
        part.shown.append(shown)
        part.abstracts.append(abstract)
        part.rarities.append(features.rarity(abstract, idf))
        part.rouge.append(
            np.array(
                [
                    [[s.fmeasure for s in scorer.score(r, p).values()] for r in paper.references]
                    for p in shown
                ]
            )
        )
        have = [{strip_suffix(t) for t in features.tokens(r)} for r in paper.references]
        part.wanted.append(
            np.mean([[word in stems for word in abstract.vocabulary] for stems in have], axis=0)
        )
    return part


def gram_table(part: Part) -> Any:
    """Return (S, GRAMS): which words and pairs a piece has."""
    columns: list[int] = []
    ends = [0]
    for abstract in part.abstracts:
        for row in abstract.words:
            columns += features.grams(row, abstract.vocabulary)
            ends.append(len(columns))
    shape = (len(ends) - 1, features.GRAMS)
    return sparse.csr_matrix((np.ones(len(columns)), columns, ends), shape=shape)


def rates(places: Any, wanted: Any) -> Any:
    """Return (BUCKETS,) share of times a hashed word was wanted, drawn to the mean of all."""
    count = np.bincount(places, minlength=features.BUCKETS)
    hits = np.bincount(places, weights=wanted, minlength=features.BUCKETS)
    return np.round((hits + 20 * wanted.mean()) / (count + 20) * 255) / 255


def ridge(table: Any, target: Any) -> tuple[Any, float]:
    """Return the weights in whole numbers from -127 to 127, and their scale."""
    weights = Ridge(RIDGE, solver="sparse_cg", tol=1e-5).fit(table, target).coef_
    scale = float(np.abs(weights).max() / 127)
    return np.round(weights / scale).astype(np.int64), scale


def forest(models: list[Any]) -> Forest:
    """Return the mean of scikit-learn's boosted trees as one forest."""
    trees = [(model, steps[0].nodes) for model in models for steps in model._predictors]
    size = max(len(nodes) for _, nodes in trees)
    arrays = {name: np.zeros((len(trees), size)) for name in ("feature", "threshold", "value")}
    left = np.tile(np.arange(size), (len(trees), 1))
    right = left.copy()
    for row, (_, nodes) in enumerate(trees):
        inner = nodes["is_leaf"] == 0
        at = np.arange(len(nodes))
        arrays["feature"][row, at] = np.where(inner, nodes["feature_idx"], 0)
        arrays["threshold"][row, at] = np.where(inner, nodes["num_threshold"], 0.0)
        arrays["value"][row, at] = nodes["value"] / len(models)
        left[row, at] = np.where(inner, nodes["left"], at)
        right[row, at] = np.where(inner, nodes["right"], at)
    base = float(np.mean([np.ravel(model._baseline_prediction)[0] for model in models]))
    depth = max(int(nodes["depth"].max()) for _, nodes in trees)
    return Forest(
        arrays["feature"].astype(np.int64),
        arrays["threshold"].astype(np.float32).astype(np.float64),
        left,
        right,
        arrays["value"].astype(np.float32).astype(np.float64),
        base,
        depth,
    )


def word_model(rows: Any, wanted: Any) -> Forest:
    return forest(
        [HistGradientBoostingClassifier(**WORD_TREES, random_state=0).fit(rows, wanted > 0.5)]
    )


def chances(words: Forest, rows: Any) -> Any:
    return features.rounded(1.0 / (1.0 + np.exp(-words(rows))))


def train(part: Part, idf: Any) -> Ranker:
    """Train all stages; what the last learns from was predicted for papers left out."""
    folds = np.random.RandomState(0).randint(0, FOLDS, len(part.shown))
    of_piece, of_word = np.repeat(folds, part.sizes), np.repeat(folds, part.word_sizes)

    scores = [(rouge[:, :, 0] + rouge[:, :, 2]).mean(axis=1) / 2 for rouge in part.rouge]
    centred = np.concatenate([score - score.mean() for score in scores])
    target = np.concatenate([(s - s.mean()) / (s.std() + 0.05) for s in scores])
    table = gram_table(part)
    said = np.zeros(len(target))
    for fold in range(FOLDS):
        weights, scale = ridge(table[of_piece != fold], centred[of_piece != fold])
        said[of_piece == fold] = table[of_piece == fold] @ weights * scale
    linear, scale = ridge(table, centred)
    print("linear model trained", flush=True)

    base = np.concatenate(
        [features.word_features(a, i) for a, i in zip(part.abstracts, part.rarities, strict=True)]
    )
    places = np.concatenate([features.places(a) for a in part.abstracts])
    wanted = np.concatenate(part.wanted)
    rate = np.zeros(len(wanted))
    for fold in range(FOLDS):
        others = of_word != fold
        rate[~others] = rates(places[others], wanted[others])[places[~others]]
    rows = np.column_stack([base, rate])
    likely = np.zeros(len(wanted))
    for fold in range(FOLDS):
        others = of_word != fold
        likely[~others] = chances(word_model(rows[others], wanted[others]), rows[~others])
    words = word_model(rows, wanted)
    print("word model trained", flush=True)

    inputs = np.concatenate(
        [
            features.sentence_features(abstract, idf_, chance, value[:, None])
            for abstract, idf_, chance, value in zip(
                part.abstracts,
                part.rarities,
                np.split(likely, np.cumsum(part.word_sizes)[:-1]),
                np.split(said, np.cumsum(part.sizes)[:-1]),
                strict=True,
            )
        ]
    )
    sentences = forest(
        [
            HistGradientBoostingRegressor(**SENTENCE_TREES, random_state=seed).fit(inputs, target)
            for seed in range(SEEDS)
        ]
    )
    print("sentence model trained", flush=True)
    return Ranker(VERSION, idf, rates(places, wanted), linear, scale, words, sentences)


def measured(part: Part, chosen: list[int]) -> str:
    """Return multi-max ROUGE of the chosen pieces: of the reference with the highest ROUGE-1."""
    rows = [rouge[n] for rouge, n in zip(part.rouge, chosen, strict=True)]
    one, two, longest = np.mean([row[row[:, 0].argmax()] for row in rows], axis=0) * 100
    return f"ROUGE-1 {one:.2f}  ROUGE-2 {two:.2f}  ROUGE-L {longest:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = REPOSITORY / "src" / "etude" / "papers" / "summaries" / FILE
    parser.add_argument("--output", type=Path, default=default)
    output: Path = parser.parse_args().output
    idf = rarities()
    print("rare words counted", flush=True)
    learnt = train(counted("train", idf), idf)
    with output.open("wb") as stream:
        np.savez_compressed(stream, **learnt.arrays())
    print(f"{output}: {output.stat().st_size / 1024:.0f} KiB")

    with np.load(output) as file:
        learnt = Ranker.from_file(file)
    dev = counted("dev", idf)
    titles = [latex_to_text(paper.title) for paper in scitldr.read("dev")]
    scores = learnt.scores(list(zip(titles, dev.shown, strict=True)))
    whole = [
        np.where([("…" in piece) for piece in shown], -1e9, score)
        for shown, score in zip(dev.shown, scores, strict=True)
    ]
    print(f"dev, first          {measured(dev, [0] * len(scores))}")
    print(f"dev, chosen         {measured(dev, [int(s.argmax()) for s in scores])}")
    print(f"dev, whole only     {measured(dev, [int(s.argmax()) for s in whole])}")
    best = [int(rouge[:, :, 0].max(axis=1).argmax()) for rouge in dev.rouge]
    print(f"dev, oracle         {measured(dev, best)}")


if __name__ == "__main__":
    main()
