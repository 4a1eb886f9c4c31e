"""Largest model that fits into memory, by fine-tuning method.

The answer is the largest of several well-known models for which the estimate of `memory_table`
stays below the available memory. The speed is an upper bound: a token costs at least 4
floating-point operations per parameter with frozen weights (2 forward, 2 for the gradient of the
activations) and 6 if the gradients of the weights are needed too.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.report.memory_table import Shape, memory_rows

PROCESS = 480_000_000
"""Bytes of the interpreter with torch, transformers and a tokenizer loaded, measured."""

ACTIVATION_SLACK = 2.0
"""Factor of activation memory over the estimate: rows of varying length fragment the allocator's
memory. Measured in a QLoRA run of SmolLM2-135M; weights do not fragment."""

OPERATIONS = {"full": 6, "lora": 4, "qlora": 4}
"""Minimum floating-point operations per token and parameter."""


@dataclass(frozen=True)
class KnownModel:
    """A published model with Llama's architecture, by its configuration."""

    name: str
    layers: int
    hidden: int
    key: int
    """Total width of the key heads."""

    intermediate: int
    vocabulary: int
    tied: bool
    """Whether embedding and output head are tied."""

    def shape(self, rank: int) -> Shape:
        """Return its sizes with an adapter of this rank on every Linear except the head."""
        h, k, i = self.hidden, self.key, self.intermediate
        sizes = [(h, h), (k, h), (k, h), (h, h), (i, h), (i, h), (h, i)]
        linear = self.layers * sum(tall * wide for tall, wide in sizes)
        embeddings = self.vocabulary * h * (1 if self.tied else 2)
        return Shape(
            parameters=linear + embeddings + (2 * self.layers + 1) * h,
            linear=linear,
            largest=i * h,
            adapter=self.layers * sum(rank * (tall + wide) for tall, wide in sizes),
            adapted=self.layers * len(sizes),
            layers=self.layers,
            hidden=h,
            query=h,
            key=k,
            intermediate=i,
            vocabulary=self.vocabulary,
        )


KNOWN_MODELS = (
    KnownModel("SmolLM2-135M", 30, 576, 192, 1536, 49152, True),
    KnownModel("SmolLM2-360M", 32, 960, 320, 2560, 49152, True),
    KnownModel("SmolLM2-1.7B", 24, 2048, 2048, 8192, 49152, True),
    KnownModel("Llama-3.2-3B", 28, 3072, 1024, 8192, 128256, True),
    KnownModel("Llama-3.1-8B", 32, 4096, 1024, 14336, 128256, False),
    KnownModel("Qwen2.5-14B", 48, 5120, 1024, 13824, 152064, False),
    KnownModel("Qwen2.5-32B", 64, 5120, 1024, 27648, 152064, False),
    KnownModel("Llama-3.1-70B", 80, 8192, 1024, 28672, 128256, False),
)


@dataclass(frozen=True)
class Fit:
    """The largest known model that one method can fine-tune here."""

    method: str
    model: str | None
    """None: not even the smallest."""

    parameters: int
    memory: int
    """Memory it needs including the process, in bytes."""

    tokens_per_s: float | None
    """Upper bound by arithmetic alone; None if the rate is unknown."""


def what_fits(memory: int, number: int, gflops: float | None) -> list[Fit]:
    """Return, for each method, the largest known model that fits, with the recipe's defaults.

    Args:
        memory: bytes available to the process.
        number: bytes per element in the forward pass.
        gflops: measured rate of matrix products in that precision.
    """
    rank, micro_tokens = AdapterSpec().rank, TrainSpec().micro_tokens
    best: dict[str, Fit] = {method: Fit(method, None, 0, 0, None) for method in OPERATIONS}
    for known in KNOWN_MODELS:
        shape = known.shape(rank)
        for row in memory_rows(shape, rank, micro_tokens, number, QuantSpec()):
            method = row["method"]
            gaps = int((ACTIVATION_SLACK - 1) * row["activations"])
            needed = PROCESS + row["total"] + gaps
            if needed > memory:
                continue
            rate = gflops and gflops * 1e9 / (OPERATIONS[method] * shape.parameters)
            best[method] = Fit(method, known.name, shape.parameters, needed, rate)
    return [best[method] for method in ("qlora", "lora", "full")]
