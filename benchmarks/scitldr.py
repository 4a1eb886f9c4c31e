"""SciTLDR as rows that a recipe can learn from.

    python benchmarks/scitldr.py [--output scitldr]

Reads `$ETUDE_DATA/summarise/scitldr` (or `shared/data` beside the repository): the abstract-only
part of SciTLDR (Cachola et al. 2020, arXiv:2004.15011, Apache-2.0), as `train.jsonl`, `dev.jsonl`
and `test.jsonl`. Writes `train.jsonl` and `dev.jsonl` with the columns `title`, `gist` and
`summary` for recipes/paper-summaries.yaml. The gist is what a tuned model will be given of the
abstract: the three sentences that Etude's ranking model puts first, as `etude.papers.latex_text`
shows them. Of several summaries the first is taken, the author's; those over 30 words are left out,
since none would be shown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.papers.latex_text import latex_to_text
from etude.papers.summaries.extractive import MOST_WORDS, gists


@dataclass(frozen=True)
class Paper:
    """One paper of SciTLDR."""

    id: str
    title: str
    sentences: list[str]
    """Of the abstract, as the data set splits them."""
    references: list[str]
    """Summaries of one line: the author's first, then those made from reviews."""

    @property
    def abstract(self) -> str:
        """The sentences in one line."""
        return " ".join(self.sentences)


def folder() -> Path:
    """Return where SciTLDR is; it may not exist."""
    chosen = os.environ.get("ETUDE_DATA")
    data = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "shared" / "data"
    return data / "summarise" / "scitldr"


def read(split: str) -> list[Paper]:
    """Return the papers of `train`, `dev` or `test`; ends the program where there are none."""
    file = folder() / f"{split}.jsonl"
    if not file.is_file():
        sys.exit(f"no SciTLDR at {file}: set ETUDE_DATA to the folder of summarise/scitldr")
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.open(encoding="utf-8")]
    return [
        Paper(row["paper_id"], row["title"], row["source"], [t for t in row["target"] if t.strip()])
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("scitldr"))
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev"):
        papers = [p for p in read(split) if len(p.references[0].split()) <= MOST_WORDS]
        texts = gists([(paper.title, paper.abstract) for paper in papers])
        rows = [
            {
                "title": latex_to_text(paper.title),
                "gist": gist,
                "summary": latex_to_text(paper.references[0]),
            }
            for paper, gist in zip(papers, texts, strict=True)
        ]
        file = output / f"{split}.jsonl"
        file.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
        )
        print(f"{file}: {len(rows)} rows")


if __name__ == "__main__":
    main()
