"""A run's folder as `tune` leaves it, of a run that looks like the quickstart's."""

from __future__ import annotations

import inspect
import json
import math
import random
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etude.tuning.config.recipe import Recipe
from etude.tuning.runs.environment import environment
from etude.tuning.runs.folder import RunFolder

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"

# (kind, out, in) of SmolLM2-135M's layers.
SHAPES = [
    ("self_attn.q_proj", 576, 576),
    ("self_attn.k_proj", 192, 576),
    ("self_attn.v_proj", 192, 576),
    ("self_attn.o_proj", 576, 576),
    ("mlp.gate_proj", 1536, 576),
    ("mlp.up_proj", 1536, 576),
    ("mlp.down_proj", 576, 1536),
]


def metrics(steps: int, total_steps: int, *, eval_every: int = 80) -> list[dict[str, Any]]:
    """Records of a run whose loss falls as small models' losses do: fast, then slowly, noisily."""
    noise = random.Random(0)
    records: list[dict[str, Any]] = [{"step": 0, "eval_loss": 3.412}]
    tokens, seconds = 0, 0.0
    for step in range(1, steps + 1):
        progress = step / total_steps
        loss = 2.45 + 1.1 * math.exp(-step / 18) + 0.25 * (1 - progress) + noise.gauss(0, 0.09)
        took = 0.9 + noise.random() * 0.15
        tokens, seconds = tokens + 1_140, seconds + took
        warm = min(1.0, step / (0.05 * total_steps))
        records.append(
            {
                "step": step,
                "total_steps": total_steps,
                "epoch": round(progress, 4),
                "tokens": tokens,
                "trained_tokens": tokens // 9,
                "loss": round(loss, 4),
                "lr": 1e-3 * warm * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2),
                "grad_norm": 0.35 + 1.6 * math.exp(-step / 10) + abs(noise.gauss(0, 0.08)),
                "tokens_per_s": round(1_140 / took, 1),
                "rss": int(8.1e8 + 2.6e8 * (1 - math.exp(-step / 6)) + noise.random() * 1e7),
                "seconds": round(seconds, 3),
            }
        )
        if step % eval_every == 0:
            held_out = 2.56 + 0.8 * math.exp(-step / 50)
            records.append({"step": step, "eval_loss": round(held_out, 4)})
    return records


def samples(count: int) -> list[dict[str, Any]]:
    """Functions of the standard library with the summary lines that they really have."""
    functions = [
        (f"{module.__name__}.{name}", function)
        for module in (json, shutil, textwrap, inspect)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__doc__ and function.__module__ == module.__name__
    ]
    noise = random.Random(1)
    found: list[dict[str, Any]] = []
    for name, function in functions[:count]:
        summary = inspect.getdoc(function).strip().splitlines()[0]
        source = inspect.getsource(function).replace(inspect.getdoc(function), "")
        words = summary.split()
        after = " ".join(word for word in words if noise.random() < 0.8) or summary
        found.append(
            {
                "origin": name,
                "prompt": f"Write the summary line of this function.\n\n{source}",
                "reference": summary,
                "before": "Here is a summary of what the function does:\n\nThe function takes the "
                f"{name.rpartition('.')[2]} arguments and returns the result. It is important to "
                "note that " + " ".join(noise.sample(words, min(3, len(words)))) + ".\n\n```python",
                "after": after,
                "score_before": round(noise.uniform(3, 22), 2),
                "score_after": round(noise.uniform(8, 78), 2),
            }
        )
    return found


def summary() -> dict[str, Any]:
    modules = [
        {
            "name": f"model.layers.{layer}.{kind}",
            "in_features": wide,
            "out_features": tall,
            "rank": 16,
            "parameters": 16 * (tall + wide),
        }
        for layer in range(30)
        for kind, tall, wide in SHAPES
    ]
    estimates = {
        method: {
            "method": method,
            "parts": {
                "process": 430_000_000,
                "weights": int(weights),
                "gradients": int(gradients),
                "optimizer": int(optimizer),
                "activations": int(activations),
                "logits": 64_000_000,
                "workspace": 5_000_000,
                "allocator": 380_000_000,
            },
            "total": int(879e6 + weights + gradients + optimizer + activations),
        }
        for method, weights, gradients, optimizer, activations in [
            ("full", 538e6, 538e6, 1_076e6, 610e6),
            ("lora", 289e6, 19.5e6, 39e6, 640e6),
            ("qlora", 131e6, 19.5e6, 39e6, 640e6),
        ]
    }
    outcomes = [
        ("qlora", 3.412, 2.563, 12.1, 27.9, 301.2, 1.118e9, 1.31e8, 1.98e7, 1_211.4),
        ("lora", 3.385, 2.541, 12.4, 28.3, 262.7, 1.31e9, 2.89e8, 1.98e7, 1_388.9),
        ("full", 3.385, 2.498, 12.4, 29.0, 371.0, 3.02e9, 5.38e8, 5.41e8, 983.5),
    ]
    keys = (
        "method",
        "eval_loss_before",
        "eval_loss",
        "rouge_before",
        "rouge",
        "seconds",
        "peak_rss",
        "weight_bytes",
        "saved_bytes",
        "tokens_per_s",
    )
    return {
        **dict(zip(keys, outcomes[0], strict=True)),
        "model": "SmolLM2-135M-Instruct",
        "steps": 320,
        "tokens": 364_800,
        "trained_tokens": 40_533,
        "trainable_parameters": sum(module["parameters"] for module in modules),
        "total_parameters": 139_399_488,
        "trainable_share": 0.035,
        "train_seconds": 301.2,
        "total_seconds": 419.0,
        "adapted_modules": modules,
        "memory_estimate": estimates["qlora"],
        "other_memory_estimates": [estimates["lora"], estimates["full"]],
        "compare": [dict(zip(keys, row, strict=True)) for row in outcomes],
        "ended": "all steps completed",
    }


def data() -> dict[str, Any]:
    def span(name: str, text: str) -> str:
        return f'<span class="{name}">{text}</span>'

    return {
        "totals": {
            "training samples": 5_120,
            "evaluation samples": 64,
            "tokens": 1_213_440,
            "trained tokens": 131_870,
            "longest sample": 512,
            "left out, too long": 214,
        },
        "length_histogram": {
            "edges": [1, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550],
            "counts": [112, 934, 1_208, 896, 640, 487, 322, 241, 153, 90, 37],
        },
        "notes": ["214 samples are longer than 512 tokens and were left out"],
        "sample_html": "".join(
            [
                span("context", "&lt;|im_start|&gt;"),
                span("context", "user\n"),
                span("dropped", "# Copyright 2001\n"),
                *(span("context", piece) for piece in ("def", " add", "(a", ", b", "):")),
                span("context", "\n    return a &lt; b\n"),
                span("context", "&lt;|im_end|&gt;\n&lt;|im_start|&gt;assistant\n"),
                *(span("trained", piece) for piece in ("Return", " whether", " a", " is", " less")),
                span("trained", " than b."),
                span("trained", "&lt;|im_end|&gt;"),
            ]
        ),
    }


@pytest.fixture
def hostile_text() -> str:
    """What a sample may hold that wants to run in the page it is shown in."""
    return HOSTILE


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """A factory of run folders under `tmp_path/runs`.

    `make_run(name, steps=320, total_steps=320, finished=True, hostile=False, **summary)`: an
    unfinished run has recipe, environment, data and metrics only; further keywords replace figures
    of its summary.
    """

    def make(
        name: str = "docstrings",
        *,
        steps: int = 320,
        total_steps: int = 320,
        finished: bool = True,
        hostile: bool = False,
        recipe: dict[str, Any] | None = None,
        **figures: Any,
    ) -> RunFolder:
        folder = RunFolder.create(name, tmp_path / "runs")
        chosen = Recipe.parse({"name": name, "data": {"kind": "docstrings"}, **(recipe or {})})
        folder.write_text("recipe.yaml", chosen.to_yaml())
        folder.write_json("environment.json", environment())
        content = data()
        if hostile:
            content["sample_html"] += HOSTILE
            content["totals"][HOSTILE] = HOSTILE
        folder.write_json("data.json", content)
        folder.write_lines("metrics.jsonl", metrics(steps, total_steps))
        if not finished:
            folder.set_state("stopped", "interrupted")
            return folder
        records = samples(16)
        if hostile:
            records.insert(0, dict.fromkeys(("prompt", "reference", "before", "after"), HOSTILE))
        folder.write_lines("samples.jsonl", records)
        folder.write_json("summary.json", {**summary(), "name": folder.name, **figures})
        folder.set_state("finished", "all steps completed")
        return folder

    return make
