"""How good are the one-line summaries, and how fast are they made?

    python benchmarks/summaries.py [--split test] [--papers N] [--writer RUN] [--json FILE]

SciTLDR's test split (618 papers), ROUGE by `etude.tuning.metrics.rouge`: for each paper the figures
of the reference with the highest ROUGE-1, averaged ("multi-max" of Cachola et al. 2020). Figures of
other ROUGE programs are not comparable; so the first sentence and the best possible choices are
printed beside ours, by the same scorer.

    lead                  the first sentence
    title                 for comparison: what ROUGE gives the title, which is never shown
    title likeness        the sentence most like the title (TF-IDF, cosine), no training
    whole                 ours, never cut where a sentence of at most 30 words is there
    default               ours, a longer sentence cut at a clause
    best whole, piece     the choice with the highest ROUGE-1, by the rules of the two above it
    best sentence         the same of any length

With `--writer RUN` (a run of recipes/paper-summaries.yaml) the summaries that the tuned model
writes are measured on the first `--papers` papers, before and after the guard, and what the guard
refused is counted by its reasons: `number` and `name` are what it invented. With `--split dev` and
`--record` the figures are kept in the run's folder, by which its summaries are preferred or not.

Exit code 1 if the default is below ROUGE-1 42.5 or ROUGE-L 34.0 on the whole test split.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import scitldr
from etude.papers.latex_text import latex_to_text
from etude.papers.sentences import sentences
from etude.papers.summaries import extract
from etude.papers.summaries.extractive import is_cut, pieces, says_title
from etude.papers.summaries.features import rarity, read
from etude.papers.summaries.model import ranker
from etude.tuning.metrics.rouge import rouge_l, rouge_n

GATE = {"rouge1": 42.5, "rougeL": 34.0}
MOST_WORDS = 30


@dataclass(frozen=True)
class Figures:
    """Means over papers, in percent, and words a summary."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - the measure's name
    words: float


def rouge(references: Sequence[str], text: str) -> tuple[float, float, float]:
    """Return ROUGE-1, 2 and L of `text` against the reference with the highest ROUGE-1."""
    rows = [
        (
            rouge_n(reference, text, 1).fmeasure,
            rouge_n(reference, text, 2).fmeasure,
            rouge_l(reference, text).fmeasure,
        )
        for reference in references
    ]
    return max(rows, key=lambda row: row[0])


def figures(papers: Sequence[scitldr.Paper], texts: Sequence[str]) -> Figures:
    """Return the figures of one summary a paper."""
    rows = [rouge(paper.references, text) for paper, text in zip(papers, texts, strict=True)]
    one, two, longest = np.mean(rows, axis=0) * 100
    words = float(np.mean([len(text.split()) for text in texts]))
    return Figures(float(one), float(two), float(longest), words)


def best(paper: scitldr.Paper, texts: Sequence[str]) -> str:
    return max(texts, key=lambda text: rouge(paper.references, text)[0])


def likest(title: str, parts: Sequence[str]) -> str:
    """Return the sentence that is most like the title, of those that may be shown whole."""
    abstract = read(title, parts)
    weights = np.log1p(abstract.counts) * rarity(abstract, ranker().idf)
    heading = rarity(abstract, ranker().idf) * abstract.titled
    return parts[int(np.argmax(weights @ heading / (np.linalg.norm(weights, axis=1) + 1e-9)))]


def entire(parts: Sequence[str]) -> list[str]:
    return [part for part in parts if len(part.split()) <= MOST_WORDS] or list(parts)


def compared(papers: Sequence[scitldr.Paper]) -> dict[str, Figures]:
    """Return the figures of every way to choose."""
    pairs = [(paper.title, paper.abstract) for paper in papers]
    titles = [latex_to_text(title) for title, _ in pairs]
    split = [sentences(latex_to_text(abstract)) for _, abstract in pairs]
    shown = [
        pieces(title, latex_to_text(text)) for title, (_, text) in zip(titles, pairs, strict=True)
    ]
    whole = [[p for p in piece if not is_cut(p)] or piece for piece in shown]
    default = [summary.text for summary in extract(pairs)]
    assert not any(says_title(text, title) for text, title in zip(default, titles, strict=True))
    assert max(len(text.split()) for text in default) <= MOST_WORDS
    rows = {
        "lead": [parts[0] for parts in split],
        "title": titles,
        "title likeness": [likest(t, entire(s)) for t, s in zip(titles, split, strict=True)],
        "whole": [summary.text for summary in extract(pairs, whole=True)],
        "best whole": [best(p, s) for p, s in zip(papers, whole, strict=True)],
        "default": default,
        "best piece": [best(p, s) for p, s in zip(papers, shown, strict=True)],
        "best sentence": [best(p, s) for p, s in zip(papers, split, strict=True)],
    }
    return {name: figures(papers, texts) for name, texts in rows.items()}


def seconds(count: int = 1000) -> tuple[float, float] | None:
    """Return seconds, and those of the processor, for `count` papers, loading included."""
    file = scitldr.folder().parents[1] / "papers" / "corpus.jsonl.xz"
    if not file.is_file():
        return None
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]
    ranker.cache_clear()
    start, busy = time.perf_counter(), time.process_time()
    extract([(row["title"], row["abstract"]) for row in rows])
    return time.perf_counter() - start, time.process_time() - busy


def written(papers: Sequence[scitldr.Paper], run: str, runs: str) -> dict[str, Any]:
    """Return what a tuned model writes of `papers`, measured before and after the guard."""
    from etude.app.papers.writers import engine_writer
    from etude.papers.summaries.guard import Guard

    writer = engine_writer(run, base=runs)
    pairs = [(paper.title, paper.abstract) for paper in papers]
    start = time.perf_counter()
    texts: list[str] = []
    for first in range(0, len(pairs), 8):
        texts += [text or "" for text in writer(pairs[first : first + 8])]
        print(f"written: {len(texts)} of {len(pairs)}", file=sys.stderr, flush=True)
    spent = time.perf_counter() - start
    extracted = [summary.text for summary in extract(pairs)]
    faults = [
        Guard(title, text).faults(said) for (title, text), said in zip(pairs, texts, strict=True)
    ]
    guarded = [
        chosen if fault else text
        for text, chosen, fault in zip(texts, extracted, faults, strict=True)
    ]
    return {
        "as written": figures(papers, texts),
        "guarded": figures(papers, guarded),
        "default": figures(papers, extracted),
        "refused": sum(bool(fault) for fault in faults),
        "reasons": dict(Counter(fault.kind for found in faults for fault in found)),
        "of": len(papers),
        "seconds_a_paper": spent / len(papers),
        "texts": texts,
    }


def record(run: str, runs: str, told: dict[str, Any]) -> None:
    """Keep the figures of a tuned model where `etude.app.papers.writers` looks for them."""
    from etude.app.papers.writers import FIGURES
    from etude.tuning.runs.folder import find_run

    rows = {name: vars(told[name]) for name in ("default", "as written", "guarded")}
    file = find_run(run, runs).path / FIGURES
    file.write_text(json.dumps(rows | {"papers": told["of"]}, indent=2) + "\n", "utf-8")
    print(f"recorded in {file}")


def table(rows: dict[str, Figures], show: Callable[[str], None] = print) -> None:
    show(f"{'':16} {'ROUGE-1':>8} {'ROUGE-2':>8} {'ROUGE-L':>8} {'words':>6}")
    for name, row in rows.items():
        show(f"{name:16} {row.rouge1:8.2f} {row.rouge2:8.2f} {row.rougeL:8.2f} {row.words:6.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=["dev", "test"], default="test")
    parser.add_argument("--papers", type=int, help="the first so many papers only")
    parser.add_argument("--writer", help="a run of recipes/paper-summaries.yaml")
    parser.add_argument("--runs", default="runs", help="folder that runs are kept in")
    parser.add_argument("--record", action="store_true", help="keep them with the run (dev only)")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.record and (chosen.split != "dev" or not chosen.writer):
        parser.error("--record is for --split dev with --writer: test decides nothing")
    papers = scitldr.read(chosen.split)[: chosen.papers]
    found: dict[str, Any] = {"split": chosen.split, "papers": len(papers)}
    if chosen.writer:
        told = written(papers, chosen.writer, chosen.runs)
        table({name: told[name] for name in ("default", "as written", "guarded")})
        print(f"the guard refused {told['refused']} of {told['of']}: {told['reasons']}")
        print(f"{told['seconds_a_paper']:.1f} s a paper")
        found |= told
        failed = False
        if chosen.record:
            record(chosen.writer, chosen.runs, told)
    else:
        rows = compared(papers)
        table(rows)
        found |= rows
        ours = rows["default"]
        failed = any(getattr(ours, name) < least for name, least in GATE.items())
        failed = failed and chosen.split == "test" and chosen.papers is None
        spent = seconds()
        if spent is not None:
            print(f"1,000 papers in {spent[0]:.1f} s, {spent[1]:.1f} s of the processor")
            found["seconds_per_1000"] = spent
    if chosen.json:
        plain = {k: vars(v) if isinstance(v, Figures) else v for k, v in found.items()}
        chosen.json.write_text(json.dumps(plain, indent=2) + "\n", "utf-8")
    if failed:
        print(f"below the gate {GATE}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
