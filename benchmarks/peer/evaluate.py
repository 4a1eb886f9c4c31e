"""One evaluator for both sides' adapters: loss on held-out answers, by PEFT in the peer's place.

    .venv-peer/bin/python evaluate.py SETTINGS.json

Why PEFT and not Etude: an evaluator of ours would repeat a mistake of ours (attention over packed
rows, the chunked loss, NF4) and find it right. Here is none of Etude's code: transformers' own
forward pass, full logits, `torch.nn.functional.cross_entropy`; that PEFT can load what Etude
saved is checked on the way.

The base is what both trained on, in float32 arithmetic so that no rounding of the evaluator's
hides a difference: for LoRA the bfloat16 weights of the model folder; for QLoRA those weights
quantised by bitsandbytes (NF4, blocks of 64, double-quantised) and decoded to what both computed
in.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

BATCH = 4


def decoded_nf4(folder: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the weights of every quantised Linear as its codes say, by module name."""
    import bitsandbytes as bnb

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    )
    return {
        name: bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        for name, module in model.named_modules()
        if isinstance(module, bnb.nn.Linear4bit)
    }


def base_model(folder: str, method: str, dtype: torch.dtype) -> Any:
    """Load the base in float32; 4-bit weights as they are decoded to `dtype`."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if method == "qlora":
        for name, weight in decoded_nf4(folder, dtype).items():
            model.get_submodule(name).weight.data.copy_(weight)
    return model.eval()


def loss(model: Any, samples: list[dict[str, list[int]]]) -> float:
    """Return nats per trained token; every token of an answer and the end token weigh the same.

    Args:
        model: gives logits (B, T, V).
        samples: `input_ids`, and `trained`, 1 where a token is a target.
    """
    total, count = 0.0, 0
    ordered = sorted(samples, key=lambda sample: len(sample["input_ids"]))
    for start in range(0, len(ordered), BATCH):
        batch = ordered[start : start + BATCH]
        width = len(batch[-1]["input_ids"])
        # Padding is on the right, where causal attention cannot see it.
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        targets = torch.full((len(batch), width), -100)
        for row, sample in enumerate(batch):
            tokens = torch.tensor(sample["input_ids"])
            trained = torch.tensor(sample["trained"], dtype=torch.bool)
            ids[row, : len(tokens)] = tokens
            targets[row, : len(tokens)] = torch.where(trained, tokens, -100)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits
        total += float(
            F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), reduction="sum")
        )
        count += int((targets[:, 1:] != -100).sum())
    return total / count


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(settings["threads"])
    began = time.perf_counter()
    lines = Path(settings["evaluation"]).read_text("utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    model = base_model(settings["model"], settings["method"], getattr(torch, settings["dtype"]))
    losses = {"base": loss(model, samples)}
    adapted: Any = None
    for name, folder in settings["adapters"].items():
        if adapted is None:
            adapted = PeftModel.from_pretrained(model, folder, adapter_name=name)
        else:
            adapted.load_adapter(folder, adapter_name=name)
        adapted.set_adapter(name)
        losses[name] = loss(adapted.eval(), samples)
    content = {"losses": losses, "seconds": time.perf_counter() - began}
    Path(settings["record"]).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
