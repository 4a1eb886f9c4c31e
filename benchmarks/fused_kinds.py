"""How fast is a step of DoRA, and of LoRA with dropout, fused and by the layers' own code?

Both sides in turn, in one process, on a random model with the layers of SmolLM2-135M: forward and
backward pass over one packed row. Medians and their ratio; the row above it is plain LoRA.

    python benchmarks/fused_kinds.py [--tokens 768] [--layers 6] [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from etude.tuning.adapters.inject import add_adapter
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.fusion.patch import fused_layers
from etude.tuning.objectives.cross_entropy import completion_loss

KINDS = {
    "lora": AdapterSpec(rank=16),
    "lora, dropout 0.1": AdapterSpec(rank=16, dropout=0.1),
    "dora": AdapterSpec(kind="dora", rank=16),
    "dora, dropout 0.1": AdapterSpec(kind="dora", rank=16, dropout=0.1),
}


def model_of(spec: AdapterSpec, layers: int, dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    model = LlamaForCausalLM(config).to(dtype)
    add_adapter(model, spec, seed=0)
    return model.train()


def step(model: LlamaForCausalLM, row: dict, *, fused: bool) -> float:
    with packed_rows(model), fused_layers(model) if fused else nullcontext():
        began = time.perf_counter()
        completion_loss(model, **row).backward()
        seconds = time.perf_counter() - began
    model.zero_grad()
    return seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, default=768)
    options.add_argument("--layers", type=int, default=6)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    lengths = [given.tokens // 4] * 4
    ids = torch.randint(0, 4096, (1, sum(lengths)))
    row = {
        "input_ids": ids,
        "targets": ids,
        "position_ids": torch.cat([torch.arange(n) for n in lengths])[None],
        "segment_lengths": lengths,
    }
    print(f"{sum(lengths)} tokens, {given.layers} layers, {given.threads} thread(s)")
    print(f"{'':24}{'own code':>12}{'fused':>12}{'ratio':>8}")
    for dtype in (torch.float32, torch.bfloat16):
        for name, spec in KINDS.items():
            model = model_of(spec, given.layers, dtype)
            times: dict[bool, list[float]] = {True: [], False: []}
            for turn in range(given.repeats + 1):
                for fused in (False, True):
                    seconds = step(model, row, fused=fused)
                    if turn:
                        times[fused].append(seconds)
            plain, fast = (statistics.median(times[way]) for way in (False, True))
            label = f"{name}, {str(dtype).removeprefix('torch.')}"
            print(f"{label:30}{plain:9.3f} s{fast:10.3f} s{plain / fast:8.2f}", flush=True)


if __name__ == "__main__":
    main()
