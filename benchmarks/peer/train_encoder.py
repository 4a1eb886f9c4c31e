"""One side of encoders.py, in a process of its own: a classifier by LoRA, on a settings file.

    python train_encoder.py SETTINGS.json

`etude` is `tune` on a recipe. `peer` is transformers' Trainer with PEFT, its rows padded to the
longest of a batch (`DataCollatorWithPadding`), with the learning rate of every step given. Both
read the same rows with the same tokenizer, train the same modules, and are timed by the same ruler:
steps alone, neither loading nor evaluation. Memory is what the process had at most above what it
had with its libraries imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from ruler import Ruler


class Memory:
    """Resident memory of this process above that of its imports."""

    def __init__(self) -> None:
        self.imports = self._now()

    def _now(self) -> int:
        pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
        return pages * 4096


def train_etude(settings: dict[str, Any]) -> dict[str, Any]:
    """Train by Etude; return what came of it."""
    import torch._dynamo  # noqa: F401 - fake tensors, with which memory is planned, import it
    from transformers import AutoModelForSequenceClassification  # noqa: F401 - before memory is read

    from etude import Recipe, tune
    from etude.tuning import pipeline  # noqa: F401 - likewise
    from etude.tuning.callbacks import Callback, StepRecord

    class Timed(Callback):
        """Passes the run's events on to the ruler."""

        said = ""

        def on_train_begin(self, total_steps: int, step: int) -> None:
            """The loop begins."""
            del total_steps, step
            view.begin()

        def on_step_end(self, record: StepRecord) -> None:
            """An optimiser step has ended."""
            del record
            view.step()

        def on_message(self, message: str) -> None:
            """A line for the user."""
            if "layers" in message:
                self.said = message

    memory, view, callback = Memory(), Ruler(settings["launched"]), Timed()
    run = tune(Recipe.parse(settings["recipe"]), base=settings["output"], callbacks=[callback])
    figures = {
        "accuracy": run.summary["accuracy"],
        "trainable_parameters": run.summary["trainable_parameters"],
        "layers": callback.said,
        "imports": memory.imports,
    }
    view.record(settings["record"], **figures)
    return figures


def train_peer(settings: dict[str, Any]) -> dict[str, Any]:
    """Train by transformers' Trainer and PEFT; return what came of it."""
    from peft import LoraConfig, get_peft_model
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    memory, view = Memory(), Ruler(settings["launched"])
    torch.set_num_threads(settings["threads"])
    dtype, labels = settings["dtype"], settings["labels"]
    weights = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    torch.manual_seed(settings["seed"])
    base = AutoModelForSequenceClassification.from_pretrained(
        settings["model"], num_labels=len(labels), dtype=weights
    )
    lora = LoraConfig(
        task_type="SEQ_CLS",
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        target_modules="all-linear",
        lora_dropout=0.0,
    )
    model = get_peft_model(base, lora)

    def encoded(file: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]
        ids = tokenizer([r["text"] for r in rows], truncation=True, max_length=128)["input_ids"]
        return [
            {"input_ids": one, "labels": labels.index(row["label"]), "length": len(one)}
            for one, row in zip(ids, rows, strict=True)
        ]

    class Timed(TrainerCallback):
        """Passes the trainer's events on to the ruler."""

        def on_train_begin(self, *given: Any, **rest: Any) -> None:
            """The loop begins."""
            del given, rest
            view.begin()

        def on_step_end(self, *given: Any, **rest: Any) -> None:
            """An optimiser step has ended."""
            del given, rest
            view.step()

    rates: list[float] = settings["rates"]
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=1.0,
        weight_decay=0.0,
        fused=True,
    )
    schedule = LambdaLR(optimizer, lambda step: rates[min(step, len(rates) - 1)])
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=settings["output"],
            per_device_train_batch_size=settings["batch"],
            per_device_eval_batch_size=64,
            max_steps=len(rates),
            max_grad_norm=1.0,
            bf16=dtype == "autocast",
            train_sampling_strategy="group_by_length" if settings["group"] else "random",
            use_cpu=True,
            seed=settings["seed"],
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=encoded(settings["train"]),
        data_collator=DataCollatorWithPadding(tokenizer),
        optimizers=(optimizer, schedule),
        callbacks=[Timed()],
    )
    trainer.train()
    held_out = encoded(settings["dev"])
    predicted = trainer.predict(held_out).predictions.argmax(1)
    right = sum(int(p) == row["labels"] for p, row in zip(predicted, held_out, strict=True))
    figures = {
        "accuracy": right / len(held_out),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "layers": "",
        "imports": memory.imports,
    }
    view.record(settings["record"], **figures)
    return figures


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    (train_etude if settings["side"] == "etude" else train_peer)(settings)


if __name__ == "__main__":
    main()
