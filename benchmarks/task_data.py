"""Public data sets as files that `etude tune` reads: see `benchmarks/tasks.py`.

Each function reads the folder of real data (`$ETUDE_DATA`, or `shared/data` beside the repository)
and writes JSONL into a working folder: `train.jsonl`, `dev.jsonl` and `test.jsonl`, as far as the
set has them. Where a set has no split, rows are dealt by a hash of their text, so that equal texts
fall on one side.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

Row = dict[str, Any]
Sides = dict[str, list[Row]]


def data_folder() -> Path:
    """Return the folder of real data.

    Raises:
        SystemExit: there is none.
    """
    folder = Path(os.environ.get("ETUDE_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        raise SystemExit(f"no data at {folder}; set ETUDE_DATA")
    return folder


def prepare(name: str, work: Path) -> Path:
    """Write a data set's files below `work`, if they are not there, and return their folder."""
    folder = work / name
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for side, rows in SETS[name](data_folder()).items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{side}.jsonl").write_text(text, "utf-8")
        done.touch()
    return folder


def dealt(rows: Iterable[Row], shares: dict[str, float]) -> Sides:
    """Deal rows to sides in these shares, by a hash of their text; repeated texts are left out."""
    sides: Sides = {side: [] for side in shares}
    seen: set[str] = set()
    for row in rows:
        if row["text"] in seen:
            continue
        seen.add(row["text"])
        digest = hashlib.blake2b(row["text"].encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        for side, share in shares.items():
            place -= share
            if place < 0:
                sides[side].append(row)
                break
    return sides


def sst2(data: Path) -> Sides:
    """Sentences of film reviews, negative or positive: 6,920 / 872 / 1,821."""
    sides: Sides = {}
    for side in ("train", "dev", "test"):
        lines = (data / "sentiment" / "sst2" / f"stsa.binary.{side}").read_text("utf-8")
        sides[side] = [
            {"text": line[2:], "label": ("negative", "positive")[int(line[0])]}
            for line in lines.splitlines()
        ]
    return sides


def banking77(data: Path) -> Sides:
    """Questions to a bank, 77 intents: 10,003 / - / 3,080."""
    return {
        side: [{"text": row["text"], "label": row["category"]} for row in _table(file, ",")]
        for side in ("train", "test")
        for file in [data / "topic" / "banking77" / f"{side}.csv"]
    }


def overruling(data: Path) -> Sides:
    """Sentences of judicial opinions, overruling or not; no split of its own."""
    rows = _table(data / "topic" / "overruling" / "test.tsv", "\t")
    return dealt(
        ({"text": r["text"], "label": r["label"]} for r in rows), {"train": 0.7, "test": 0.3}
    )


def unfair_tos(data: Path) -> Sides:
    """Clauses of terms of service, nine classes, 90 % of them `Other`; no split of its own."""
    rows = _table(data / "topic" / "unfair_tos" / "data.tsv", "\t")
    return dealt(
        ({"text": r["text"].strip(), "label": r["label"].strip()} for r in rows),
        {"train": 0.7, "test": 0.3},
    )


def bc5cdr(data: Path) -> Sides:
    """Chemicals and diseases in abstracts: 4,560 / 4,581 / 4,797 sentences."""
    folder = data / "ner" / "bc5cdr"
    names = {"train": "train.tsv", "dev": "devel.tsv", "test": "test.tsv"}
    return {side: list(_sentences(folder / file)) for side, file in names.items()}


def wnut17(data: Path) -> Sides:
    """Rare entities in social media, six types: 3,394 / 1,009 / 1,287 sentences."""
    folder = data / "ner" / "wnut17"
    names = {
        "train": "wnut17train.conll",
        "dev": "emerging.dev.conll",
        "test": "emerging.test.annotated",
    }
    return {side: list(_sentences(folder / file)) for side, file in names.items()}


def medquad(data: Path) -> Sides:
    """Medical questions and answers: 3,000 / - / 500."""
    folder = data / "instruct" / "medquad"
    return {side: _jsonl(folder / f"{side}.jsonl") for side in ("train", "test")}


def gsm8k(data: Path) -> Sides:
    """Word problems: 7,473 / - / 1,319."""
    folder = data / "instruct" / "gsm8k"
    return {side: _jsonl(folder / f"{side}.jsonl") for side in ("train", "test")}


def gsm8k_pairs(data: Path) -> Sides:
    """Word problems with a right answer and one whose last result is wrong, for preferences.

    The wrong result is off by 1 to 9, drawn from the question's hash; it stands in the last
    calculation and in the answer.
    """

    def pairs(rows: list[Row]) -> Iterator[Row]:
        for row in rows:
            steps, _, result = row["answer"].rpartition("#### ")
            last = steps.rfind(f"={result}>>{result}")
            if last < 0:
                continue
            digest = hashlib.blake2b(row["question"].encode(), digest_size=8).digest()
            wrong = str(int(result) + 1 + digest[0] % 9) if result.isdigit() else f"{result}0"
            rejected = steps[:last] + steps[last:].replace(result, wrong) + f"#### {wrong}"
            yield {"prompt": row["question"], "chosen": row["answer"], "rejected": rejected}

    return {side: list(pairs(rows)) for side, rows in gsm8k(data).items()}


def banking77_pairs(data: Path) -> Sides:
    """Two questions to a bank that mean the same, in the columns of a search: test side only."""
    by_intent: dict[str, list[str]] = {}
    for row in banking77(data)["test"]:
        by_intent.setdefault(row["label"], []).append(row["text"])
    return {
        "test": [
            {"question": first, "answer": second}
            for texts in by_intent.values()
            for first, second in zip(texts[:8:2], texts[1:8:2], strict=True)
        ]
    }


def e2e_nlg(data: Path) -> Sides:
    """Restaurant descriptions from slots; training is on the set's own development side.

    The test side has one row a meaning representation, with all its references.
    """
    folder = data / "instruct" / "e2e_nlg"
    pairs = {
        side: [line.split("||", 1) for line in _lines(folder / file)]
        for side, file in (("train", "valid.txt"), ("test", "test.txt"))
    }
    grouped: dict[str, list[str]] = {}
    for meaning, text in pairs["test"]:
        grouped.setdefault(meaning.strip(), []).append(text.strip())
    return {
        "train": [{"meaning": m.strip(), "text": text.strip()} for m, text in pairs["train"]],
        "test": [{"meaning": m, "text": texts} for m, texts in grouped.items()],
    }


def scitldr(data: Path) -> Sides:
    """Abstracts and one-line summaries: 1,992 / 619 / 618."""
    folder = data / "summarise" / "scitldr"
    return {
        side: [
            {"abstract": row["source"], "summary": row["target"]}
            for row in _jsonl(folder / f"{side}.jsonl")
        ]
        for side in ("train", "dev", "test")
    }


def wikitext2(data: Path) -> Sides:
    """Articles of Wikipedia, one a row, from the two files that there are."""
    folder = data / "lm" / "wikitext2"
    return {
        "train": [{"text": text} for text in _articles(folder / "valid.txt")],
        "test": [{"text": text} for text in _articles(folder / "test.txt")],
    }


SETS: dict[str, Callable[[Path], Sides]] = {
    function.__name__: function
    for function in (
        *(sst2, banking77, overruling, unfair_tos, bc5cdr, wnut17),
        *(medquad, gsm8k, gsm8k_pairs, banking77_pairs, e2e_nlg, scitldr, wikitext2),
    )
}


def _table(file: Path, separator: str) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines, delimiter=separator) if row["text"]]


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text("utf-8").splitlines() if line.strip()]


def _jsonl(file: Path) -> list[Row]:
    return [json.loads(line) for line in _lines(file)]


def _sentences(file: Path) -> Iterator[Row]:
    """Yield sentences of a file with a word and its tag a line, blank lines between them."""
    words: list[str] = []
    tags: list[str] = []
    for line in [*file.read_text("utf-8").splitlines(), ""]:
        if line.strip():
            word, _, tag = line.rstrip().rpartition("\t")
            words.append(word.strip())
            tags.append(tag.strip())
        elif words:
            yield {"words": words, "tags": tags}
            words, tags = [], []


def _articles(file: Path) -> list[str]:
    """Return articles; each begins with a heading of one equals sign."""
    found: list[list[str]] = []
    for line in file.read_text("utf-8").splitlines():
        text = line.strip()
        if text.startswith("= ") and not text.startswith("= ="):
            found.append([])
        if text and found:
            found[-1].append(text)
    return ["\n".join(article) for article in found]
