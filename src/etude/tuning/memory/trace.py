"""One step of training without numbers: every tensor that it makes, and how long it lives.

The model is built on fake tensors, which have shapes and no storage, its Linears quantised and its
adapters put on by the code that does it for real; then one forward and backward pass runs, and
every storage is counted from when an operation makes it to when Python lets go of it. So nothing is
assumed of a model but that transformers can build it: grouped heads, sliding windows and experts
come out as they are computed.

Layers of a kind cost alike. Two shallow models are traced, and what one more layer adds is the
difference, taken as many times as the model has layers.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.initialization import no_init_weights

from etude.core.errors import ModelError, innermost_reason
from etude.tuning.adapters.experts import AdaptedExperts
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.modules_to_save import (
    ModuleToSave,
    attach_saved,
    find_saved,
    tied_to,
)
from etude.tuning.adapters.multi_adapter import DEFAULT, adapter_parameters, set_adapter
from etude.tuning.adapters.registry import HEAD
from etude.tuning.adapters.stacked import StackedLinear
from etude.tuning.adapters.targets import find_targets
from etude.tuning.config.recipe import Recipe
from etude.tuning.fusion.forward_probe import image_shape
from etude.tuning.fusion.packed_attention import packed_rows, watched_attention
from etude.tuning.fusion.packed_heads import segment_logits
from etude.tuning.fusion.patch import fused_layers
from etude.tuning.images.preparation import Preparation
from etude.tuning.models.added_tokens import matrices
from etude.tuning.models.batch_norm import freeze_statistics
from etude.tuning.models.heads import CAUSAL_LM, Head, head_modules
from etude.tuning.models.meta_model import build_model, quantizable_linears
from etude.tuning.models.token_lists import wanted_tokens
from etude.tuning.objectives.cross_entropy import cross_entropy_sum, plain_head
from etude.tuning.quant.linear import QuantLinear

_PADDED_SHARE = 0.75
"""Mean length of samples over the longest of their batch, where rows are padded; data decide it."""

_TWIN = "_trained_copy"

Held = Callable[[str, nn.Linear, torch.dtype], QuantLinear | None]
"""Makes the layer that holds the weight of a Linear, by path; None: it stays as it is."""


Rows = Literal["packed", "padded", "masked"]
"""Layout of a micro-batch; `masked`: padded, for models that take no mask but one of each row."""


class _CannotPackError(ModelError):
    """The model's samples cannot share a row."""


@dataclass(frozen=True)
class Trace:
    """Bytes of one micro-batch, above weights and gradients."""

    kept: int
    """What autograd keeps at the end of the forward pass."""

    forward_peak: int
    """The most at once in the forward pass and the loss."""

    peak: int
    """The most at once in both passes."""

    def more(self, deeper: Trace, times: float) -> Trace:
        """Return this and `times` what `deeper` has over it."""
        here, there = vars(self), vars(deeper)
        return Trace(**{key: round(here[key] + times * (there[key] - here[key])) for key in here})


@dataclass(frozen=True)
class Weights:
    """Bytes of a model as it is held for training."""

    held: int
    """Weights, quantised or not, buffers and adapters."""

    trained: int
    """Numbers trained."""

    largest_trained: int
    """Numbers of the largest trained tensor."""

    sizes: tuple[tuple[int, ...], ...]
    """Shapes of the trained tensors."""

    dense: int
    """What decoding every quantised weight at once would add."""

    parameters: int

    experts: int
    """Numbers of experts that are stacked in one tensor, which no quantiser here takes."""


class _Live(TorchDispatchMode):
    """Counts the bytes of all storages alive."""

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType] - torch's is untyped
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                key: int = cast("Any", storage)._cdata
                if key not in self._known:
                    self._known[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, key)
        return out


_FILLS = (Tensor.uniform_, Tensor.normal_, Tensor.zero_, Tensor.fill_)


class _WithoutValues(TorchFunctionMode):
    """Leaves out first values, which fake tensors do not hold and spend most of the time on."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return args[0] if func in _FILLS else func(*args, **(kwargs or {}))


def weigh(
    config: Any, recipe: Recipe, dtype: torch.dtype, held: Held, head: Head = CAUSAL_LM
) -> Weights:
    """Build the whole model without numbers and count what it holds.

    Raises:
        ModelError: transformers cannot build it, or a target matches nothing.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = _build(config, recipe, dtype, held, head)
        layers = [module for module in model.modules() if isinstance(module, QuantLinear)]
        tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
        trained = [p for p in model.parameters() if p.requires_grad]
        dense = sum(layer.in_features * layer.out_features for layer in layers)
        inside = {id(b) for layer in layers for b in layer.buffers()}
        adapters = {id(p) for p in adapter_parameters(model).values()}
        outside = [
            p
            for name, p in model.named_parameters()
            if id(p) not in inside | adapters and not name.endswith(_TWIN)
        ]
        return Weights(
            held=sum(tensor.nbytes for tensor in tensors.values()),
            trained=sum(p.numel() for p in trained),
            largest_trained=max(p.numel() for p in trained),
            sizes=tuple(tuple(p.shape) for p in trained),
            dense=dense * dtype.itemsize,
            parameters=sum(p.numel() for p in outside) + dense,
            experts=sum(
                p.numel()
                for module in model.modules()
                if _are_experts(module) or isinstance(module, StackedLinear)
                for p in module.parameters(recurse=False)
            ),
        )


def trace_step(
    config: Any,
    recipe: Recipe,
    dtype: torch.dtype,
    held: Held,
    compute: torch.dtype | None,
    head: Head = CAUSAL_LM,
) -> Trace:
    """Trace one micro-batch of the model's full depth.

    Args:
        config: the transformers configuration.
        recipe: how it is trained; rows are taken to be as full as the recipe lets them be.
        dtype: of the weights that are not quantised.
        held: how Linears are held.
        compute: what float32 weights compute in; None: as they are.
        head: what the model has on top.

    Raises:
        ModelError: the model's code needs numbers, not shapes alone.
    """
    if head.sees_images:
        # Stages differ in width: the whole model is traced.
        return _trace(config, recipe, dtype, held, compute, head, rows="padded")
    depth = int(config.num_hidden_layers)
    shallow, deep = min(2, depth), min(4, depth)
    trace = partial(_trace, recipe=recipe, dtype=dtype, held=held, compute=compute, head=head)
    kinds: list[Rows] = ["padded", "masked"]
    if recipe.data.packing and head.packs_rows:
        kinds.insert(0, "packed")
    while True:
        rows = kinds.pop(0)
        try:
            first = trace(_cut(config, shallow), rows=rows)
            break
        except ModelError as error:
            if not kinds or (rows == "packed" and not isinstance(error, _CannotPackError)):
                raise
    if deep == shallow:
        return first
    second = trace(_cut(config, deep), rows=rows)
    return first.more(second, (depth - shallow) / (deep - shallow))


def _cut(config: Any, layers: int) -> Any:
    """Return the configuration with so many layers, lists of one entry a layer cut as well."""
    depth = config.num_hidden_layers
    shorter = copy.deepcopy(config)
    fields = cast("dict[str, Any]", vars(config))
    for name, value in fields.items():
        if isinstance(value, list) and len(cast("list[Any]", value)) == depth:
            setattr(shorter, name, value[:layers])
    shorter.num_hidden_layers = layers
    return shorter


def _build(config: Any, recipe: Recipe, dtype: torch.dtype, held: Held, head: Head) -> Any:
    """Build the model as a run would hold it, on fake tensors."""
    if head.is_new:
        config = head.configure(config, pad_id=0)
    if more := len(wanted_tokens(recipe.model)):
        config = copy.deepcopy(config)
        config.get_text_config().vocab_size += more
    # Truncated normal values, those of vision transformers, are drawn until all of them fit.
    without = no_init_weights() if head.sees_images else nullcontext()
    with _WithoutValues(), without:
        model = build_model(config, dtype, recipe.model.id, head)
        freeze_statistics(model)
        return _adapted(model, recipe, dtype, held, head)


def _adapted(model: Any, recipe: Recipe, dtype: torch.dtype, held: Held, head: Head) -> Any:
    """Quantise the Linears of a model and put the adapter on, or make all of it trainable."""
    full = recipe.adapter.kind == "full"
    model.requires_grad_(full)
    for path, linear in quantizable_linears(model).items():
        layer = held(path, linear, dtype)
        if layer is not None:
            model.set_submodule(path, layer)
    if not full:
        # Where factors begin changes numbers, not shapes.
        spec = recipe.adapter
        names = [*spec.modules_to_save, *(head_modules(model) if head.is_new else [])]
        saved = find_saved(model, names)
        if spec.kind != HEAD:
            targets: list[str] = []
            if spec.target_modules or not spec.target_parameters:
                targets = [p for p in find_targets(model, spec.target_modules) if p not in saved]
            changed = {"init": "default", "modules_to_save": [], "target_modules": targets}
            add_adapter(model, spec.model_copy(update=changed), seed=0)
        _train_rows(model, saved, len(wanted_tokens(recipe.model)))
        _copy_saved(model, saved)
    return model


def _train_rows(model: Any, saved: list[str], count: int) -> None:
    """Make the last rows of the matrices of tokens trainable, where all of them are not."""
    whole = {other for path in saved for other in (path, *tied_to(model, path))}
    found = matrices(model) if count else {}
    for path in found:
        module = model.get_submodule(path)
        if path not in whole and not isinstance(module, ModuleToSave):
            words = len(cast("Tensor", module.weight))
            values = torch.empty(count, cast("Tensor", module.weight).shape[1])
            attach_saved(model, [path], DEFAULT, rows=(range(words - count, words), values))
    if found.keys() - whole:
        set_adapter(model, DEFAULT, trainable=True)


def _copy_saved(model: Any, saved: list[str]) -> None:
    """Give modules that are trained whole their float32 copies.

    Fake tensors cannot be converted in place, as copying the module itself would.
    """
    for path in saved:
        for owner in list(cast("nn.Module", model.get_submodule(path)).modules()):
            for name, parameter in list(owner.named_parameters(recurse=False)):
                twin = torch.empty(parameter.shape, dtype=torch.float32)
                owner.register_parameter(f"{name}{_TWIN}", nn.Parameter(twin))


def _trace(
    config: Any,
    recipe: Recipe,
    dtype: torch.dtype,
    held: Held,
    compute: torch.dtype | None,
    head: Head = CAUSAL_LM,
    *,
    rows: Rows = "packed",
) -> Trace:
    packed = rows == "packed"
    context = getattr(config, "max_position_embeddings", None)
    batch, length, segments = row_shape(recipe, packed=packed, context=context)
    train = recipe.train
    with FakeTensorMode(allow_non_fake_inputs=True), _Live() as live:
        model = _build(config, recipe, dtype, held, head).train()
        _count_experts(model)
        if train.gradient_checkpointing:
            model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
            # transformers does so itself, and says so.
            model.config.use_cache = False
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        ids = torch.zeros(batch, length, dtype=torch.long)
        # Rows that are padded have a mask of their own each, which keys are repeated for.
        shape = (batch, 1, length, length) if rows == "padded" else (batch, length)
        inputs: dict[str, Any] = {"attention_mask": torch.ones(shape, dtype=torch.bool)}
        if packed:
            inputs = {
                "position_ids": torch.arange(length)[None],
                "segment_lengths": segments,
            }
        if packed and getattr(model, "_is_stateful", False):
            raise _CannotPackError(f"{type(model).__name__} keeps a state along the row")
        if head.sees_images:
            inputs = _images(config, recipe, dtype)
        before = live.peak = live.now
        compute_loss = _loss_of(head)
        # With checkpointing, layers are computed again in the backward pass.
        with _rows(model, packed=packed):
            try:
                with torch.autocast("cpu", compute, enabled=compute is not None):
                    loss = compute_loss(model, ids, inputs)
                kept, forward_peak = live.now - before, live.peak - before
                # Of a head alone, whose copies are not in the traced model, nothing is kept.
                if loss.requires_grad:
                    loss.backward()  # pyright: ignore[reportUnknownMemberType]
            except Exception as error:
                # Each model's own code runs here; what it needs of numbers it asks in its own way.
                if isinstance(error, _CannotPackError):
                    raise
                if packed and head.is_new:
                    raise _CannotPackError(innermost_reason(error)) from error
                raise ModelError(
                    f"the memory of {type(model).__name__} cannot be planned: its forward pass "
                    f"depends on numbers ({innermost_reason(error)})"
                ) from error
        return Trace(kept, forward_peak, live.peak - before)


def _images(config: Any, recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
    """Return a micro-batch of images, as many as the recipe lets there be."""
    side = recipe.data.image_size
    size = None if side is None else (side, side)
    _, _, height, width = image_shape(config, 1, size)
    count = max(1, recipe.train.micro_tokens // Preparation((height, width)).tokens)
    return {"pixel_values": torch.zeros(image_shape(config, count, size), dtype=dtype)}


def row_shape(
    recipe: Recipe, *, packed: bool = True, context: int | None = None
) -> tuple[int, int, list[int]]:
    """Return rows, tokens a row, and lengths of the samples in it, as full as they may well be.

    Args:
        recipe: of the run.
        packed: whether the samples of a micro-batch share one row.
        context: tokens that the model takes at most; samples are cut to it.
    """
    longest = min(recipe.data.max_length, context or recipe.data.max_length)
    if packed:
        # A sample longer than a micro-batch has a row of its own.
        total = max(recipe.train.micro_tokens, longest)
        count, rest = divmod(total, longest)
        return 1, total, [longest] * count + ([rest] if rest else [])
    # A micro-batch is cut by its tokens before they are padded to the longest of its samples.
    rows = round(recipe.train.micro_tokens / (_PADDED_SHARE * longest))
    return max(1, rows), longest, [longest]


@contextmanager
def _rows(model: Any, *, packed: bool) -> Generator[None]:
    """Context manager: as the run's rows are; within it a model that cannot pack is refused.

    The run itself compares numbers (`fusion.packing_probe`). Without them it can be seen whether
    each layer attends by `packed_attention` or fused, and with all that the model gives it.

    Raises:
        _CannotPackError: a layer does not.
    """
    if not packed:
        yield
        return
    with packed_rows(model), watched_attention() as seen, fused_layers(model) as fusion:
        yield
    attending = len(seen.layers) + sum(why is None for why in fusion.ran.values())
    if seen.unused or attending < model.config.get_text_config().num_hidden_layers:
        raise _CannotPackError(f"{type(model).__name__} has an attention of its own")


def _loss(model: Any, ids: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Return the loss of a batch all of whose positions are trained."""
    matrix = plain_head(model)
    if matrix is None:
        output = model(input_ids=ids, use_cache=False, **inputs)
        logits = cast("Tensor", output.logits).float().flatten(0, 1)
        return F.cross_entropy(logits, ids.flatten(), reduction="sum")
    output = model.base_model(input_ids=ids, use_cache=False, **inputs)
    hidden = cast("Tensor", output.last_hidden_state).flatten(0, 1)
    everything = torch.arange(len(hidden))
    return cross_entropy_sum(
        hidden.index_select(0, everything), matrix.weight, ids.flatten(), matrix.rows, matrix.ids
    )


def _class_loss(model: Any, ids: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Return the loss of a batch of whole samples, or of all their tokens.

    As `objectives.classification` and `objectives.token_classification` compute it.
    """
    given = {"input_ids": ids, **inputs}
    if "segment_lengths" in inputs and "ForSequenceClassification" in type(model).__name__:
        logits = segment_logits(model, given, len(inputs["segment_lengths"])).float()
    else:
        logits = cast("Tensor", model(**given).logits).float().flatten(0, -2)
    return F.cross_entropy(logits, ids.new_zeros(len(logits)), reduction="sum")


def _image_loss(model: Any, ids: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Return the loss of a batch of images."""
    logits = cast("Tensor", model(**inputs).logits).float()
    return F.cross_entropy(logits, ids.new_zeros(len(logits)), reduction="sum")


def _states_loss(model: Any, ids: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Return a loss of the mean state of a batch, as embeddings are computed."""
    states = cast("Tensor", model(input_ids=ids, **inputs).last_hidden_state).float()
    return states.mean(dim=1).square().sum()


def _loss_of(head: Head) -> Callable[[Any, Tensor, dict[str, Any]], Tensor]:
    """Return what computes the loss of a model with this head."""
    if head.kind == "causal-lm":
        return _loss
    if head.sees_images:
        return _image_loss
    return _states_loss if head.kind == "none" else _class_loss


def _count_experts(model: nn.Module) -> None:
    """Let the model's layers of experts compute with as many tokens as are routed, without a route.

    Which expert takes a token depends on numbers; how many tokens all of them take does not. The
    forward pass of each such layer is replaced on the layer itself: the model is the trace's own.
    """
    for module in model.modules():
        if isinstance(module, AdaptedExperts):
            cast("Any", module).forward = partial(_routed_adapted, module)
        # Llama 4's compute with every token, and take no route.
        elif _are_experts(module) and len(inspect.signature(module.forward).parameters) > 1:
            cast("Any", module).forward = partial(_routed, module)


def _are_experts(module: nn.Module) -> bool:
    stacked = dict(module.named_parameters(recurse=False))
    return {"gate_up_proj", "down_proj"} <= stacked.keys() and stacked["down_proj"].dim() == 3


def _routed(module: Any, hidden: Tensor, top_index: Tensor, top_weights: Tensor) -> Tensor:
    """Compute as transformers' experts do, one of them for all that is routed."""
    per_token = top_index.shape[-1]
    tokens = torch.arange(hidden.shape[0]).repeat_interleave(per_token)
    state = hidden[tokens]
    gate, up = _times(state, module.gate_up_proj[0]).chunk(2, dim=-1)
    activation = getattr(module, "act_fn", F.silu)
    inner = _times(activation(gate) * up, module.down_proj[0])
    weighted = inner * top_weights.reshape(-1, 1)
    out = torch.zeros_like(hidden)
    return out.index_add(0, tokens, weighted.to(out.dtype))


def _routed_adapted(
    module: AdaptedExperts, hidden: Tensor, top_index: Tensor, top_weights: Tensor
) -> Tensor:
    """Compute as adapted experts do, one of them for all that is routed."""
    rows = hidden.shape[0] * top_index.shape[-1]
    counts = [rows] + [0] * (module.count - 1)
    return module.routed(hidden, torch.arange(rows), counts, top_weights)


def _times(rows: Tensor, weight: Tensor) -> Tensor:
    """Return rows Wᵀ, with W as most models store it, (out, in), or as GPT-OSS and Llama 4 do."""
    return rows @ (weight if weight.shape[0] == rows.shape[-1] else weight.T)
