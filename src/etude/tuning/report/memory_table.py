"""Memory estimates of full, LoRA and QLoRA fine-tuning, from a model's configuration alone.

With P parameters, P_L of them in Linears that QLoRA quantises, A adapter parameters and b bytes
per element in the forward pass:

    method  weights                         gradients  optimiser (AdamW: two moments)
    full    4 P, and b P_L cast copies      4 P        8 P
    LoRA    b P + 4 A                       4 A        8 A
    QLoRA   b (P − P_L) + NF4(P_L) + 4 A    4 A        8 A

Full fine-tuning has float32 weights, as steps of 1e-4 vanish in bfloat16's 8 bits; unless b is 4
the forward pass uses cast copies. Activations are the tensors that autograd saves in one forward
pass of `micro_tokens` tokens through Llama-like blocks; the terms are in `_kept_per_token`.

This is an estimate. It excludes the interpreter with its libraries (some 480 MB), fragmentation and
short-lived tensors.
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
"""Scales per float32 scale in double quantisation (Dettmers et al. 2023, section 3)."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model that determine its training memory."""

    parameters: int
    linear: int
    """Parameters of the Linears except the output head, which QLoRA quantises."""

    largest: int
    """Parameters of the largest of them, decoded as a whole for its product."""

    adapter: int
    adapted: int
    """Number of adapted modules."""

    layers: int
    hidden: int
    query: int
    """Total width of the query heads."""

    key: int
    """Total width of the key heads, and of the value heads."""

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
    """Estimate the memory of each method.

    Args:
        config: the transformers configuration of a causal language model.
        rank: rank of the adapters.
        micro_tokens: tokens in one forward pass.
        targets: target modules; see `find_targets`.
        quant: block size and double quantisation of the QLoRA row.
        model: the model section; its `dtype` is that of the forward pass.
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
    """Estimate the memory of each method for a model of this shape; see `memory_table`.

    Args:
        shape: sizes of the model.
        rank: rank of the adapters.
        micro_tokens: tokens in one forward pass.
        number: bytes per element in the forward pass.
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
    """Build the model without weights and return its sizes.

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
    """Return the size in NF4, in bytes: half a byte per weight, and the scales."""
    blocks = -(-parameters // quant.block)
    scales = blocks + FLOAT32 * -(-blocks // SCALES_A_BLOCK) if quant.double else FLOAT32 * blocks
    return parameters // 2 + scales


def _activations(
    shape: Shape, rank: int, tokens: int, number: int, *, full: bool, checkpointing: bool
) -> int:
    """Return the bytes that autograd saves in one forward pass, plus one chunk of logits."""
    layer = _kept_per_token(shape, rank, number, full=full)
    # With checkpointing: the input of every layer, and all tensors of the recomputed one.
    recomputed = shape.layers * shape.hidden * number + layer
    kept = recomputed if checkpointing else shape.layers * layer
    logits = CHUNK * shape.vocabulary * (FLOAT32 + number)
    return tokens * kept + logits


def _kept_per_token(shape: Shape, rank: int, number: int, *, full: bool) -> int:
    """Return the bytes that autograd saves for one token in one layer.

    Both norms save their input in float32. Queries, keys, values and the attention's output are
    saved once, as are the inputs of attention and MLP, shared by their projections; of the MLP also
    the two projections, the activation and the product, which is the input of the last projection.
    Trained weights need the norms' outputs too; adapters need the output of A.
    """
    norms = 2 * FLOAT32 * shape.hidden
    attention = shape.hidden + 2 * shape.query + 2 * shape.key
    mlp = shape.hidden + 4 * shape.intermediate
    extra = 2 * shape.hidden if full else rank * shape.adapted // max(1, shape.layers)
    return norms + number * (attention + mlp + extra)
