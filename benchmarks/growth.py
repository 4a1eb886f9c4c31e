"""How does the cost of a token grow with the number of rows, and with their length?

    python benchmarks/growth.py [--rows 1000 10000 100000] [--lengths 256 ... 8192] [--json FILE]

Rows: LoRA on SmolLM2-135M-Instruct and ever more rows of GSM8K, a few steps of each; tokens a
second and peak memory should not feel how many rows wait. Lengths: one step over about 8,192 tokens
in samples of one length each, Etude and TRL + PEFT (batches of one sample), half of each sample
trained. Each run is a process of its own, timed from the start of its loop.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from against_trl import (
    ALPHA,
    CLIP,
    DTYPE,
    LR,
    RANK,
    REPOSITORY,
    Work,
    gsm8k,
    make_peer,
    python_of,
    recipe,
)
from etude.core.machine import this_machine
from etude.tuning.models.load import open_checkpoint
from etude.tuning.models.pull import pull
from etude.tuning.models.sources import resolve
from etude.tuning.runs.environment import environment

TOKENS = 8192


def by_rows(work: Work, counts: list[int], steps: int) -> list[dict[str, Any]]:
    """Train a few steps with ever more rows waiting."""
    found: list[dict[str, Any]] = []
    lines = (work.folder / "train.jsonl").read_text("utf-8").splitlines()
    for count in counts:
        place = work.folder / f"rows-{count}"
        place.mkdir(exist_ok=True)
        data = place / "train.jsonl"
        texts = (lines[i % len(lines)] for i in range(count))
        # A number makes each row another one.
        numbered = (t.replace('"content": "', f'"content": "{i}. ', 1) for i, t in enumerate(texts))
        data.write_text("\n".join(numbered) + "\n", "utf-8")
        fields = recipe(work.folder, "lora", steps, work.options, seed=0).model_dump(mode="json")
        fields["data"]["train"] = str(data)
        record = etude(work, place, fields)
        speed = record["step_tokens_per_s"]
        found.append({"rows": count, "tokens_per_s": speed, "peak_rss": record["peak_rss"]})
        print(f"{count:>8,} rows{speed:>8,.0f} tokens/s{record['peak_rss'] / 2**20:>9,.0f} MiB")
    return found


def etude(work: Work, place: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Train by Etude; the record, with the speed of the steps after the first."""
    settings = {"record": str(place / "record.json"), "output": str(place), "recipe": fields}
    work.run(Path(sys.executable), "train_etude.py", str(place), settings)
    record = json.loads((place / "record.json").read_text("utf-8"))
    seconds = record["step_seconds"]
    share = sum(seconds[1:]) / sum(seconds) if len(seconds) > 1 else 1.0
    steps = max(1, len(seconds) - 1) / len(seconds)
    record["step_tokens_per_s"] = record["tokens"] * steps / (record["training_seconds"] * share)
    return record


def by_length(work: Work, lengths: list[int]) -> list[dict[str, Any]]:
    """Train one step of samples of one length, by both sides."""
    tokenizer: Any = open_checkpoint(resolve(str(work.folder / "model"))).tokenizer()
    lines = (work.folder / "train.jsonl").read_text("utf-8").splitlines()
    text = " ".join(m["content"] for line in lines for m in json.loads(line)["messages"])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found: list[dict[str, Any]] = []
    for length in lengths:
        place = work.folder / f"length-{length}"
        place.mkdir(exist_ok=True)
        half, count = (length - 64) // 2, max(1, TOKENS // length)
        # Half of the tokens ask, half answer; 64 are left to the template.
        parts = [tokenizer.decode(ids[i * half : (i + 1) * half]) for i in range(2 * count)]
        roles = ("user", "assistant")
        rows = [
            {"messages": [{"role": r, "content": parts[2 * n + i]} for i, r in enumerate(roles)]}
            for n in range(count)
        ]
        data = place / "train.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        fields = recipe(work.folder, "lora", 1, work.options, seed=0).model_dump(mode="json")
        fields["data"] |= {"train": str(data), "max_length": length + 256}
        fields["train"] |= {"batch_samples": count, "micro_tokens": max(768, length)}
        records = {"etude": etude(work, place / "etude", fields)}
        output = place / "trl"
        settings = {
            "record": str(place / "trl.json"), "output": str(output), "method": "lora",
            "dtype": DTYPE, "order": None,
            "model": str(work.folder / "model"), "train": str(data), "rank": RANK, "alpha": ALPHA,
            "max_length": length + 256, "batch_samples": count, "micro_batch": 1, "rates": [LR],
            "clip": CLIP, "seed": 0, "adapter_dtype": "default",
        }  # fmt: skip
        work.run(python_of(work.options.venv), "train_trl.py", str(output), settings)
        records["trl"] = json.loads((place / "trl.json").read_text("utf-8"))
        line: dict[str, Any] = {"length": length}
        for side, record in records.items():
            line[side] = {
                "tokens_per_s": record["tokens"] / record["training_seconds"],
                "peak_rss": record["peak_rss"],
            }
        found.append(line)
        cells = [
            f"{side} {one['tokens_per_s']:,.0f} tokens/s {one['peak_rss'] / 2**20:,.0f} MiB"
            for side, one in line.items()
            if side != "length"
        ]
        print(f"{length:>6} tokens a sample: {', '.join(cells)}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 1024, 4096, 8192])
    parser.add_argument("--threads", type=int, default=this_machine().physical_cores)
    parser.add_argument("--limit", type=float, default=30.0, help="minutes a process may take")
    parser.add_argument("--venv", type=Path, default=REPOSITORY / ".venv-peer")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "growth")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    options.rows_asked, options.rows = options.rows, 16
    pull("smollm2-135m")
    work = Work(options.work, options)
    prepare = {"model": "smollm2-135m", "data": str(gsm8k()), "output": str(work.folder)}
    sizes = {"rows": 2000, "eval_rows": 1, "max_length": 512}
    work.run(Path(sys.executable), "prepare.py", "prepare", prepare | sizes)
    content: dict[str, Any] = {"environment": environment()}
    content["rows"] = by_rows(work, options.rows_asked, steps=4)
    if options.lengths:
        content["peer"] = make_peer(options.venv.resolve())
        content["lengths"] = by_length(work, options.lengths)
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
