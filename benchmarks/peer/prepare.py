"""What both sides of against_trl.py start from: one model folder, the same rows.

    python prepare.py SETTINGS.json

The model of Etude's alias, dequantised to bfloat16, is written as an ordinary transformers folder
and both sides load that, so that they start from equal weights. Rows that are longer than the
limit are left out beforehand: one side would drop them and the other cut them. The held-out rows
are also written as tokens, with the targets marked, for the evaluator.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.schema import Sample
from etude.tuning.models.load import load_model


def fitting(
    file: Path, encoder: Encoder, max_length: int
) -> Iterator[tuple[dict[str, Any], EncodedSample]]:
    """Yield the conversations of GSM8K's `file` that fit, with their tokens.

    After the last row the first comes again, its question numbered, so that no two are the same.
    """
    lines = file.read_text("utf-8").splitlines()
    for turn in count():
        for number, line in enumerate(lines, start=1):
            row = json.loads(line)
            question = f"Case {turn + 1}. {row['question']}" if turn else row["question"]
            sample = Sample.conversation(
                ("user", question), ("assistant", row["answer"]), origin=f"{file.name}:{number}"
            )
            encoded = encoder.encode(sample)
            if len(encoded) <= max_length:
                yield {"messages": [turn.as_dict() for turn in sample.messages]}, encoded


def write_lines(file: Path, records: list[dict[str, Any]]) -> None:
    """Write JSON lines."""
    file.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    data, output = Path(settings["data"]), Path(settings["output"])
    loaded = load_model(ModelSpec(id=settings["model"], dtype="bfloat16"), QuantSpec(kind="none"))
    loaded.model.save_pretrained(output / "model")
    loaded.tokenizer.save_pretrained(output / "model")

    limit = settings["max_length"]
    # The encoder refuses what is longer than its own limit; here rows are to be passed over.
    encoder = Encoder(loaded.tokenizer, DataSpec(train="gsm8k", max_length=100_000))
    train = fitting(data / "train.jsonl", encoder, limit)
    held_out = fitting(data / "test.jsonl", encoder, limit)
    chosen = list(islice(train, settings["rows"]))
    evaluation = list(islice(held_out, settings["eval_rows"]))
    write_lines(output / "train.jsonl", [row for row, _ in chosen])
    # Etude wants a row to evaluate on; the peer's side evaluates nothing while it trains.
    write_lines(output / "one_row.jsonl", [row for row, _ in evaluation[:1]])
    write_lines(
        output / "evaluation.jsonl",
        [
            {"input_ids": e.input_ids.tolist(), "trained": e.trained.astype(int).tolist()}
            for _, e in evaluation
        ],
    )
    facts = {
        "rows": len(chosen),
        "tokens": sum(len(e) for _, e in chosen),
        "trained_tokens": sum(e.trained_tokens for _, e in chosen),
        "longest": max(len(e) for _, e in chosen),
        "lengths": [len(e) for _, e in chosen],
        "eval_rows": len(evaluation),
        "eval_trained_tokens": sum(e.trained_tokens for _, e in evaluation),
    }
    (output / "rows.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
