"""How often are runs called different that cannot differ?

    python benchmarks/paired_null.py [--pairs N] [--json FILE]

N independent pairs of runs of a small random encoder, each on texts of its own whose labels are
drawn by a coin, the two runs apart by their seed alone. Nothing can be learnt, so on rows that
neither has seen one is as good as the other. Counted is how often the paired test of `etude runs
compare --paired` (McNemar's exact test) calls the two different at 5 %. Of 100 pairs the promise is
at most 10; exit code 1 if it is missed. A test whose level is right calls 5 in the mean, an exact
test of few samples fewer. Ten minutes on one core; with `--json` a call goes on where the last was
ended.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune
from etude.tuning.report.paired import paired_test
from etude.tuning.runs.environment import environment
from etude.tuning.runs.folder import RunFolder

WORDS = [f"word{number}" for number in range(60)]
ROWS = 120
"""To train on, and as many to evaluate on."""
PROMISE = 0.10


def small_encoder(folder: Path) -> Path:
    """Write a random BERT of two layers with a vocabulary of whole words; return its folder."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    return folder


def write_rows(file: Path, generator: np.random.Generator) -> None:
    """Write texts of random words whose labels are drawn by a coin."""
    rows = [
        {"text": " ".join(generator.choice(WORDS, 8)), "label": "ab"[generator.integers(2)]}
        for _ in range(ROWS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def recipe_of(model: Path, folder: Path, seed: int) -> Recipe:
    """Return the recipe of one run of a pair."""
    return Recipe.parse(
        {
            "name": f"seed-{seed}",
            "task": "text-classification",
            "model": {"id": str(model), "dtype": "float32"},
            "adapter": {"rank": 4, "alpha": 8},
            "quant": {"kind": "none"},
            "data": {
                "train": str(folder / "train.jsonl"),
                "eval": str(folder / "dev.jsonl"),
                "max_length": 32,
            },
            "train": {"epochs": 1, "batch_samples": 16, "lr": 1e-2, "seed": seed, "threads": 1},
        }
    )


def compared(model: Path, number: int) -> dict[str, Any]:
    """Make the runs of a pair and compare them."""
    generator = np.random.default_rng(number)
    folder = Path(tempfile.mkdtemp())
    try:
        for name in ("train.jsonl", "dev.jsonl"):
            write_rows(folder / name, generator)
        runs = [
            RunFolder.open(tune(recipe_of(model, folder, seed), base=folder / "runs").folder)
            for seed in (2 * number, 2 * number + 1)
        ]
        test = paired_test(*runs)
        assert test is not None
        return {
            "better": test.better,
            "worse": test.worse,
            "permutation": test.p,
            "mcnemar": test.mcnemar,
            "differs": test.differs,
        }
    finally:
        shutil.rmtree(folder)


def kept(file: Path | None) -> list[dict[str, Any]]:
    """Return the pairs of an earlier call, which are not made again."""
    if file is None or not file.exists():
        return []
    return json.loads(file.read_text("utf-8"))["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = environment()
    with tempfile.TemporaryDirectory() as aside:
        model = small_encoder(Path(aside))
        rows = kept(options.json)[: options.pairs]
        for number in range(len(rows), options.pairs):
            rows.append(compared(model, number))
            if options.json is not None:
                content = {"environment": machine, "rows": rows}
                options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    called = sum(row["differs"] for row in rows)
    by_permutation = sum(row["permutation"] <= 0.05 for row in rows)
    apart = float(np.mean([row["better"] + row["worse"] for row in rows]))
    print(
        f"{called} of {len(rows)} pairs called different at 5 % ({by_permutation} by permutation); "
        f"the runs of a pair differ on {apart:.0f} of {ROWS} samples"
    )
    sys.exit(called > PROMISE * len(rows))


if __name__ == "__main__":
    main()
