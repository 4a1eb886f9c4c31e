"""memory_table: what full, LoRA and QLoRA fine-tuning of a model would hold, from its config alone.

With P parameters, P_L of them in Linears that QLoRA quantises, A adapter parameters and b bytes a
number in the forward pass:

    method  weights                         gradients  optimiser (AdamW: two moments)
    full    4 P, and b P_L cast copies      4 P        8 P
    LoRA    b P + 4 A                       4 A        8 A
    QLoRA   b (P − P_L) + NF4(P_L) + 4 A    4 A        8 A

Full fine-tuning keeps float32 weights, as steps of 1e-4 vanish in bfloat16's 8 bits; where b is
not 4 the forward pass works on copies. Activations are what autograd keeps of one forward pass of
`micro_tokens` tokens through blocks of Llama's kind; the terms are in `_kept_per_token`.

It is an estimate. The interpreter with its libraries (some 480 MB), the gaps that the allocator
leaves and what lives for an instant only are not in it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from etude.tuning.adapters import bases
from etude.tuning.adapters.targets import adaptable_modules, find_targets, linear_modules
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.meta_model import build_meta_model
from etude.tuning.objectives.cross_entropy import CHUNK
from etude.tuning.placement import Placement
from etude.tuning.report.summary import MemoryRow

# The recipe's own defaults.
ADAPTER, QUANT, MODEL = AdapterSpec(), QuantSpec(), ModelSpec()

FLOAT32 = 4

SCALES_A_BLOCK = 256
"""Scales that share one float32 in double quantisation (Dettmers et al. 2023, section 3)."""


@dataclass(frozen=True)
class Shape:
    """The figures of a model that decide what training it holds."""

    parameters: int
    linear: int
    """Parameters of the Linears but the output head: what QLoRA quantises."""

    largest: int
    """Of the largest of them, decoded whole to be multiplied with."""

    adapter: int
    adapted: int
    """Modules with an adapter."""

    layers: int
    hidden: int
    query: int
    """Numbers a token has in all query heads."""

    key: int
    """Numbers a token has in all key heads, and again in all value heads."""

    intermediate: int
    vocabulary: int


def memory_table(
    config: Any,
    rank: int,
    micro_tokens: int,
    *,
    targets: str | list[str] = ADAPTER.target_modules,
    quant: QuantSpec = QUANT,
    model: ModelSpec = MODEL,
    checkpointing: bool = False,
) -> list[MemoryRow]:
    """Predict the memory of each method.

    Args:
        config: the transformers configuration of a causal language model.
        rank: of the adapters.
        micro_tokens: tokens of one forward pass.
        targets: modules that get an adapter; see `find_targets`.
        quant: block size and double quantisation of the QLoRA row.
        model: its `dtype` is that of the forward pass.
        checkpointing: whether layers are recomputed in the backward pass.

    Returns:
        Rows for `full`, `lora` and `qlora`, sizes in bytes.
    """
    shape = measure_shape(config, rank, targets)
    number = Placement.of(model).dtype.itemsize
    return memory_rows(shape, rank, micro_tokens, number, quant, checkpointing=checkpointing)


def memory_rows(
    shape: Shape,
    rank: int,
    micro_tokens: int,
    number: int,
    quant: QuantSpec,
    *,
    checkpointing: bool = False,
) -> list[MemoryRow]:
    """Predict the memory of each method for a model of this shape; see `memory_table`.

    Args:
        shape: of the model.
        rank: of the adapters.
        micro_tokens: tokens of one forward pass.
        number: bytes a number has in the forward pass.
        quant: block size and double quantisation of the QLoRA row.
        checkpointing: whether layers are recomputed in the backward pass.
    """
    copies = 0 if number == FLOAT32 else number * shape.linear
    quantised = _nf4_bytes(shape.linear, quant)
    adapters = FLOAT32 * shape.adapter
    rest = number * (shape.parameters - shape.linear)
    decoded = number * shape.largest

    def row(method: str, weights: int, trained: int, workspace: int = 0) -> MemoryRow:
        full = method == "full"
        activations = workspace + _activations(
            shape, rank, micro_tokens, number, full=full, checkpointing=checkpointing
        )
        gradients, optimizer = FLOAT32 * trained, 2 * FLOAT32 * trained
        return MemoryRow(
            method=method,
            weights=weights,
            gradients=gradients,
            optimizer=optimizer,
            activations=activations,
            total=weights + gradients + optimizer + activations,
        )

    return [
        row("full", FLOAT32 * shape.parameters + copies, shape.parameters),
        row("lora", number * shape.parameters + adapters, shape.adapter),
        row("qlora", rest + quantised + adapters, shape.adapter, decoded),
    ]


def measure_shape(config: Any, rank: int, targets: str | list[str]) -> Shape:
    """Build the model without weights and count.

    Raises:
        ModelError: the configuration is not that of a causal language model.
        NoTargetMatchedError: a target matches nothing.
    """
    skeleton: Any = build_meta_model(copy.deepcopy(config), torch.float32, "this configuration")
    module: nn.Module = skeleton
    head: Any = skeleton.get_output_embeddings()
    linear = {name: layer for name, layer in linear_modules(module).items() if layer is not head}
    sizes = {name: math.prod(bases.sizes(layer)) for name, layer in linear.items()}
    every = adaptable_modules(module)
    adapted = [every[name] for name in find_targets(module, targets)]
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Shape(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        linear=sum(sizes.values()),
        largest=max(sizes.values(), default=0),
        adapter=sum(rank * sum(bases.sizes(layer)) for layer in adapted),
        adapted=len(adapted),
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        query=heads * width,
        key=int(getattr(config, "num_key_value_heads", None) or heads) * width,
        intermediate=int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
        vocabulary=int(config.vocab_size),
    )


def _nf4_bytes(parameters: int, quant: QuantSpec) -> int:
    """Return the bytes in NF4: half a byte a number, and a scale a block."""
    blocks = -(-parameters // quant.block)
    scales = blocks + FLOAT32 * -(-blocks // SCALES_A_BLOCK) if quant.double else FLOAT32 * blocks
    return parameters // 2 + scales


def _activations(
    shape: Shape, rank: int, tokens: int, number: int, *, full: bool, checkpointing: bool
) -> int:
    """Return the bytes that autograd keeps of one forward pass, and the loss's one chunk."""
    layer = _kept_per_token(shape, rank, number, full=full)
    # With checkpointing: the input of every layer, and all of the one that is being recomputed.
    recomputed = shape.layers * shape.hidden * number + layer
    kept = recomputed if checkpointing else shape.layers * layer
    logits = CHUNK * shape.vocabulary * (FLOAT32 + number)
    return tokens * kept + logits


def _kept_per_token(shape: Shape, rank: int, number: int, *, full: bool) -> int:
    """Return the bytes that autograd keeps for one token in one layer.

    Both norms keep their input in float32. Queries, keys, values and the attention's output are
    kept once; the inputs of attention and MLP once each, as the input that their projections
    share; and of the MLP the two projections, the activation and the product, which is the input
    of the last. Weights that are trained want the norms' outputs too; adapters, what leaves A.
    """
    norms = 2 * FLOAT32 * shape.hidden
    attention = shape.hidden + 2 * shape.query + 2 * shape.key
    mlp = shape.hidden + 4 * shape.intermediate
    extra = 2 * shape.hidden if full else rank * shape.adapted // max(1, shape.layers)
    return norms + number * (attention + mlp + extra)
