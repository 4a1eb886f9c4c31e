"""How fast are answers generated, beside transformers' own `generate` on the same model?

    python benchmarks/generation.py [--prompts 16] [--tokens 64] [--repeats 3] [--json FILE]

SmolLM2-135M-Instruct with an adapter of rank 16 on all linear layers, dense and NF4, prompts of
GSM8K's test questions, 8 at a time, greedy, keys and values kept, no end token, so that both write
as many tokens. Both run the same model object: the adapter is Etude's, and NF4 is decoded once for
the whole run on both sides; bfloat16 where the processor multiplies it, else float32. Sides take
turns; medians and extremes of new tokens a second, prompts counted in the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from against_trl import DTYPE, gsm8k
from etude.core.machine import this_machine
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.generation import greedy
from etude.tuning.models.load import load_model
from etude.tuning.quant.linear import dense_weights
from etude.tuning.runs.environment import environment

BATCH = 8


def prompts(tokenizer: Any, count: int) -> list[list[int]]:
    """Return questions as a chat puts them, longest last, so that batches are of like length."""
    lines = (gsm8k() / "test.jsonl").read_text("utf-8").splitlines()[:count]
    chats = [[{"role": "user", "content": json.loads(line)["question"]}] for line in lines]
    made = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        for chat in chats
    ]
    return sorted(made, key=len)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=16, help="how many, a multiple of 8 (16)")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens an answer (64)")
    parser.add_argument("--repeats", type=int, default=3, help="runs a side (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(this_machine().physical_cores)
    found: dict[str, Any] = {"environment": environment(), "settings": vars(options)}
    for kind in ("none", "nf4"):
        loaded = load_model(ModelSpec(id="smollm2-135m", dtype=DTYPE), QuantSpec(kind=kind))
        model = loaded.model.eval()
        add_adapter(model, AdapterSpec(rank=16, alpha=32.0), seed=0)
        with torch.no_grad():
            for parameter in adapter_parameters(model).values():
                parameter.add_(0.01 * torch.randn_like(parameter))
        asked = prompts(loaded.tokenizer, options.prompts)
        speeds: dict[str, list[float]] = {"etude": [], "transformers": []}
        same = total = 0
        for repeat in range(-1, options.repeats):
            answers: dict[str, list[list[int]]] = {}
            for side in sorted(speeds, reverse=repeat % 2 == 1):
                began = time.perf_counter()
                with torch.inference_mode(), dense_weights(model):
                    answers[side] = [
                        answer
                        for start in range(0, len(asked), BATCH)
                        for answer in generate(side, model, asked[start:][:BATCH], options.tokens)
                    ]
                seconds = time.perf_counter() - began
                if repeat >= 0:  # the first run of each only warms up
                    speeds[side].append(options.tokens * len(asked) / seconds)
            pairs = zip(answers["etude"], answers["transformers"], strict=True)
            agree = [a == b for one, other in pairs for a, b in zip(one, other, strict=True)]
            same, total = sum(agree), len(agree)
        ratio = statistics.median(
            a / b for a, b in zip(speeds["etude"], speeds["transformers"], strict=True)
        )
        found[kind] = {"tokens_per_s": speeds, "ratio": ratio, "same_tokens": same / total}
        cells = [
            f"{side} {statistics.median(v):,.0f} ({min(v):,.0f} to {max(v):,.0f})"
            for side, v in speeds.items()
        ]
        print(f"{kind:<6}new tokens/s: {', '.join(cells)}; ratio {ratio:.2f}")
        print(f"      {same / total:.1%} of the tokens are the same", flush=True)
    if options.json:
        found["settings"] = {k: str(v) for k, v in vars(options).items()}
        options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


def generate(side: str, model: Any, batch: list[list[int]], tokens: int) -> list[list[int]]:
    """Generate by one side; no token ends an answer."""
    by_transformers = greedy._by_transformers
    if side == "transformers":
        return by_transformers(model, batch, [-1], tokens)
    return greedy.generate(model, batch, [-1], max_new_tokens=tokens)


if __name__ == "__main__":
    main()
