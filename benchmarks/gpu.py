"""How near to its limit does one GPU fine-tune, beside PEFT? The whole table, one script.

    python benchmarks/gpu.py [--json FILE] [--tokens 4096] [--repeats 5] [--tiny]

Models have Llama-3-8B's shape and random weights, made on the device in the dtype that they stay
in; 4-bit ones are random codes. A step is one row of tokens, all trained: forward, backward, AdamW
on adapters of rank 16 on all linear layers. PEFT (with bitsandbytes for QLoRA) takes the same
steps in the same process, after Etude's model is gone. Printed beside each goal: tokens a second,
share of the matrix rate (operations counted by flops.py, once each; the rate is that of the layer's
own bfloat16 products, measured first), decoding against the measured copy bandwidth, peak memory,
and what a model of 70 billion parameters takes, from one and two of its layers.

Without a GPU the table says so in every cell. `--tiny` runs every part on a model of a few thousand
weights, on the processor if need be: it shows that the script works, not how fast anything is.

Example:
    python benchmarks/gpu.py --json gpu.json
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig

from etude.core.machine import gpus, peak_rss, reset_peak
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.fusion.patch import fused_layers
from etude.tuning.models.meta_model import build_meta_model, put, quantizable_linears
from etude.tuning.objectives.cross_entropy import completion_loss
from etude.tuning.placement import Placement, choose_device
from etude.tuning.quant.block import BlockLinear
from etude.tuning.runs.environment import environment
from flops import model_flops

RANK = 16
NF4 = QuantSpec(kind="nf4", double=True)


@dataclass(frozen=True)
class Shape:
    """A Llama-like model."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    vocab: int

    @property
    def config(self) -> LlamaConfig:
        """Its configuration, as transformers builds it."""
        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            architectures=["LlamaForCausalLM"],
        )

    @property
    def products(self) -> list[tuple[int, int]]:
        """The weights of one layer, (out, in)."""
        h, key = self.hidden, self.hidden // self.heads * self.key_heads
        return [(h, h), (key, h), (key, h), (h, h), *[(self.inner, h)] * 2, (h, self.inner)]


LLAMA_8B = Shape(4096, 32, 32, 8, 14336, 128256)
LLAMA_70B = Shape(8192, 80, 64, 8, 28672, 128256)
TINY = Shape(64, 2, 4, 2, 96, 128)
TINY_LARGE = Shape(128, 6, 8, 2, 192, 128)

GB = 1e9


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    key: str
    name: str
    form: str
    goal: float | None = None
    more: bool = True
    """Whether more is better."""


ROWS = [
    Row("copy_gb_s", "copy bandwidth, GB/s", "{:,.0f}"),
    Row("rate_tflop_s", "matrix rate, bfloat16, TFLOP/s", "{:,.1f}"),
    Row("decode_gb_s", "NF4 decode, GB/s", "{:,.0f}"),
    Row("decode_share", "NF4 decode, of the copy bandwidth", "{:.2f}", 0.80),
    Row("lora_tokens_s", "LoRA, tokens/s", "{:,.0f}"),
    Row("lora_share", "LoRA, of the matrix rate", "{:.2f}", 0.45),
    Row("lora_gb", "LoRA, peak memory, GB", "{:,.2f}"),
    Row("qlora_tokens_s", "QLoRA, tokens/s", "{:,.0f}"),
    Row("qlora_ratio", "QLoRA, of LoRA's tokens/s", "{:.2f}", 0.85),
    Row("qlora_gb", "QLoRA, peak memory, GB", "{:,.2f}"),
    Row("peft_lora_tokens_s", "PEFT LoRA, tokens/s", "{:,.0f}"),
    Row("peft_lora_gb", "PEFT LoRA, peak memory, GB", "{:,.2f}"),
    Row("lora_speed_of_peft", "LoRA, tokens/s, of PEFT's", "{:.2f}", 2.0),
    Row("lora_memory_of_peft", "LoRA, peak memory, of PEFT's", "{:.2f}", 0.60, more=False),
    Row("peft_qlora_tokens_s", "PEFT QLoRA, tokens/s", "{:,.0f}"),
    Row("peft_qlora_gb", "PEFT QLoRA, peak memory, GB", "{:,.2f}"),
    Row("qlora_speed_of_peft", "QLoRA, tokens/s, of PEFT's", "{:.2f}", 2.0),
    Row("qlora_memory_of_peft", "QLoRA, peak memory, of PEFT's", "{:.2f}", 0.60, more=False),
    Row("large_gb", "70B QLoRA, all layers' memory kept, GB", "{:,.1f}"),
    Row("large_checkpointed_gb", "70B QLoRA, layers computed again, GB", "{:,.1f}", 80, more=False),
]


class Bench:
    """One device, one shape; each part writes what it found into `found`."""

    def __init__(self, options: argparse.Namespace, placement: Placement) -> None:
        self.placement, self.device = placement, placement.device
        self.repeats = options.repeats
        self.shape = TINY if options.tiny else replace(LLAMA_8B, layers=options.layers)
        self.large = TINY_LARGE if options.tiny else LLAMA_70B
        self.tokens = 32 if options.tiny else options.tokens
        self.large_tokens = 32 if options.tiny else 2048
        self.copied = 1 << 16 if options.tiny else 1 << 30
        self.found: dict[str, float] = {}
        self.reasons: dict[str, str] = {}
        self.computed_by = ""

    def part(self, name: str, work: Callable[[], None]) -> None:
        """Run a part; what stops it is told, and stops no other."""
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            work()
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            line = str(error).strip().partition("\n")[0]
            self.reasons[name] = f"{type(error).__name__}: {line}"
        # Outside of the handler: the exception holds the frames, and they the model.
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any]) -> float:
        """Return the median time of `work`, after two calls that compile and warm up."""
        times: list[float] = []
        for turn in range(self.repeats + 2):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            if turn >= 2:
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def start_peak(self) -> None:
        """Let `peak` count from now on."""
        self.placement.reset_peak_memory()
        reset_peak()

    def peak(self) -> int:
        """Return the most bytes since `start_peak`: of the device, or of the process."""
        on_gpu = self.placement.peak_memory()
        return peak_rss() if on_gpu is None else on_gpu

    def random(self, *shape: int) -> Tensor:
        """Return bfloat16 numbers made where they stay."""
        made = torch.empty(shape, dtype=torch.bfloat16, device=self.device)
        return made.normal_(std=0.02)

    def copy(self) -> None:
        """Time a copy within the memory: what is read and what is written count."""
        source = torch.zeros(self.copied, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        seconds = self.seconds(lambda: target.copy_(source))
        self.found["copy_gb_s"] = 2 * self.copied / seconds / GB

    def rate(self) -> None:
        """Time the products of one layer, forward and to the input, each weight by itself."""
        work = total = 0.0
        for out, into in self.shape.products:
            x, g = self.random(self.tokens, into), self.random(self.tokens, out)
            W = self.random(out, into)
            for multiply in (lambda x=x, W=W: x @ W.T, lambda g=g, W=W: g @ W):
                total += self.seconds(multiply)
                work += 2.0 * self.tokens * out * into
        self.found["rate_tflop_s"] = work / total / 1e12

    def decode(self) -> None:
        """Time the largest weight of a layer: codes and scales read, bfloat16 written."""
        layer = self.coded(self.shape.inner, self.shape.hidden)
        seconds = self.seconds(lambda: layer.dequantize(torch.bfloat16))
        moved = layer.quantized_bytes + 2 * self.shape.inner * self.shape.hidden
        self.found["decode_gb_s"] = moved / seconds / GB
        if "copy_gb_s" in self.found:
            self.found["decode_share"] = self.found["decode_gb_s"] / self.found["copy_gb_s"]

    def coded(self, out: int, into: int) -> BlockLinear:
        """Return a 4-bit layer of random codes: levels of NF4 are near to normal numbers."""
        layer = BlockLinear(into, out, NF4, torch.bfloat16, device=self.device)
        layer.codes.random_(0, 256)
        layer.absmax.random_(0, 256)
        layer.absmax_scales.fill_(0.01)
        layer.absmax_offset.fill_(0.04)
        return layer

    def model(self, shape: Shape, held: str) -> Any:
        """Return a frozen model on the device, `held` as bfloat16, nf4, or bitsandbytes' nf4."""
        model = build_meta_model(shape.config, torch.bfloat16, "random weights")
        for name, linear in quantizable_linears(model).items():
            if held == "bfloat16":
                continue
            out, into = linear.weight.shape
            made = self.coded(out, into) if held == "nf4" else self.theirs(out, into)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, made)
        for name, parameter in list(model.named_parameters()):
            if parameter.is_meta:
                norm = parameter.dim() == 1
                value = self.random(*parameter.shape)
                put(model, [name], value.fill_(1.0) if norm else value)
        return model.to(self.device).requires_grad_(False)

    def theirs(self, out: int, into: int) -> nn.Module:
        """Return bitsandbytes' layer, quantised from random numbers."""
        import bitsandbytes as bnb

        made = bnb.nn.Linear4bit(
            into, out, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta"
        )
        made.weight = bnb.nn.Params4bit(
            self.random(out, into), requires_grad=False, quant_type="nf4", compress_statistics=True
        ).to(self.device)
        return made

    def train(self, model: Any, step: Callable[[], Tensor]) -> tuple[float, int]:
        """Return the time of a step and the peak of memory; AdamW keeps up with the gradients."""
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4)
        model.train()
        self.start_peak()

        def whole() -> None:
            step().backward()
            optimizer.step()
            optimizer.zero_grad()

        seconds = self.seconds(whole)
        return seconds, self.peak()

    def row(self, shape: Shape, tokens: int) -> tuple[Tensor, Tensor]:
        """Return random tokens and their positions, (1, T)."""
        ids = torch.randint(0, shape.vocab, (1, tokens), device=self.device)
        return ids, torch.arange(tokens, device=self.device)[None]

    def etude_step(self, model: Any, shape: Shape, tokens: int) -> Callable[[], Tensor]:
        """Return what computes the loss of one row, all of it trained."""
        ids, positions = self.row(shape, tokens)
        targets = ids.roll(-1, 1)

        def step() -> Tensor:
            inputs = {"position_ids": positions, "segment_lengths": [tokens]}
            return completion_loss(model, ids, targets, **inputs) / tokens

        return step

    @contextmanager
    def ours(self, shape: Shape, held: str) -> Generator[Any]:
        """Give a model with adapters, its layers fused."""
        model = self.model(shape, held)
        add_adapter(model, AdapterSpec(rank=RANK, alpha=RANK, target_modules="all-linear"), seed=0)
        with packed_rows(model), fused_layers(model) as how:
            self.computed_by = str(how)
            yield model

    def etude(self, method: str, held: str) -> None:
        """Train by Etude."""
        with self.ours(self.shape, held) as model:
            step = self.etude_step(model, self.shape, self.tokens)
            seconds, peak = self.train(model, step)
        found = self.found
        found[f"{method}_tokens_s"] = self.tokens / seconds
        found[f"{method}_gb"] = peak / GB
        if method == "lora" and "rate_tflop_s" in found:
            pairs = self.tokens * (self.tokens + 1) // 2
            work = model_flops(self.shape.config, RANK, self.tokens, self.tokens, pairs)
            found["lora_share"] = work / seconds / 1e12 / found["rate_tflop_s"]
        if method == "qlora" and "lora_tokens_s" in found:
            found["qlora_ratio"] = found["qlora_tokens_s"] / found["lora_tokens_s"]

    def peft(self, method: str, held: str) -> None:
        """PEFT as it comes: PyTorch's attention, whole logits, no layer computed again."""
        from peft import LoraConfig, get_peft_model

        base = self.model(self.shape, held)
        if held != "bfloat16":
            base.is_loaded_in_4bit = True
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear")
        model = get_peft_model(base, config)
        ids, _ = self.row(self.shape, self.tokens)
        seconds, peak = self.train(model, lambda: model(input_ids=ids, labels=ids).loss)
        found = self.found
        found[f"peft_{method}_tokens_s"] = self.tokens / seconds
        found[f"peft_{method}_gb"] = peak / GB
        if f"{method}_tokens_s" in found:
            speed = found[f"{method}_tokens_s"] / found[f"peft_{method}_tokens_s"]
            found[f"{method}_speed_of_peft"] = speed
            found[f"{method}_memory_of_peft"] = found[f"{method}_gb"] / found[f"peft_{method}_gb"]

    def whole_large(self, *, checkpointed: bool) -> None:
        """Scale memory from one and two layers to all: a second layer adds what each one does."""
        peaks: list[int] = []
        for layers in (1, 2):
            shape = replace(self.large, layers=layers)
            with self.ours(shape, "nf4") as model:
                if checkpointed:
                    model.activation_checkpointing_enable(
                        activation_checkpointing_kwargs={"use_reentrant": False}
                    )
                peaks.append(self.train(model, self.etude_step(model, shape, self.large_tokens))[1])
            del model
            gc.collect()
        key = "large_checkpointed_gb" if checkpointed else "large_gb"
        each = peaks[1] - peaks[0]
        self.found[key] = (peaks[0] + (self.large.layers - 1) * each) / GB

    def run(self) -> None:
        """Run all parts, the device's own limits first."""
        self.part("copy", self.copy)
        self.part("matrix rate", self.rate)
        self.part("decode", self.decode)
        self.part("LoRA", lambda: self.etude("lora", "bfloat16"))
        self.part("QLoRA", lambda: self.etude("qlora", "nf4"))
        self.part("PEFT LoRA", lambda: self.peft("lora", "bfloat16"))
        self.part("PEFT QLoRA", lambda: self.peft("qlora", "bitsandbytes"))
        self.part("70B", lambda: self.whole_large(checkpointed=False))
        self.part("70B, computed again", lambda: self.whole_large(checkpointed=True))


def verdict(row: Row, value: float | None, *, judged: bool) -> str:
    if row.goal is None:
        return ""
    goal = f"goal {'>=' if row.more else '<='} {row.goal:.2f}"
    if value is None or not judged:
        return goal
    return f"{goal}   {'met' if (value >= row.goal) == row.more else 'missed'}"


def table(found: dict[str, float], *, judged: bool) -> str:
    """Return the table; what was not measured says so."""
    lines: list[str] = []
    for row in ROWS:
        value = found.get(row.key)
        cell = "not measured" if value is None else row.form.format(value)
        lines.append(f"{row.name:<42}{cell:>14}   {verdict(row, value, judged=judged)}".rstrip())
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    text = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=text[0],
        epilog="example: python benchmarks/gpu.py --json gpu.json",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--tokens", type=int, default=4096, help="of a step (4096)")
    parser.add_argument("--layers", type=int, default=32, help="of the 8B shape (32)")
    parser.add_argument("--repeats", type=int, default=5, help="steps that are timed (5)")
    parser.add_argument("--tiny", action="store_true", help="a very small model, on any device")
    return parser


def main() -> None:
    options = arguments().parse_args()
    there = torch.cuda.is_available()
    # Asked for by name: a GPU without Triton's kernels is measured as well, and the table says so.
    placement = Placement(choose_device("cuda" if there else "cpu"), torch.bfloat16)
    bench = Bench(options, placement)
    torch.manual_seed(0)
    if there or options.tiny:
        bench.run()
    machine = environment()
    name = gpus()[0].name if there else "no GPU"
    print(f"{name}; torch {machine['torch']}; {machine['gpu_kernels']}")
    if bench.computed_by:
        print(bench.computed_by)
    if options.tiny:
        print("a tiny model: shows that the script runs, not how fast anything is")
    elif there:
        print(f"{bench.shape}, {bench.tokens} tokens; 70B at {bench.large_tokens} tokens")
    print(f"\n{table(bench.found, judged=there and not options.tiny)}")
    for part, why in bench.reasons.items():
        print(f"{part}: {why}")
    if options.json:
        content = {
            "environment": {**machine, "placement": placement.as_json()},
            "device": name,
            "tiny": options.tiny,
            "shape": asdict(bench.shape),
            "tokens": bench.tokens,
            "computed_by": bench.computed_by,
            "rows": [asdict(row) | {"value": bench.found.get(row.key)} for row in ROWS],
            "reasons": bench.reasons,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    sys.exit(1 if bench.reasons else 0)


if __name__ == "__main__":
    main()
