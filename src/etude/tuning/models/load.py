"""Model loading: from a model's name to a model in memory, quantised while it is read.

    checkpoint on disk ──row slice──▶ float32 ──quantise──▶ codes and scales of one Linear
                           │             └────cast────────▶ embeddings, norms, biases, head
                           └─────blocks of a GGUF file────▶ one Linear, unchanged (`native`)
                                 codes of bitsandbytes

At no time does memory hold more than the finished model and a few slices, so a model can be loaded
wherever its quantised form fits. NF4 and double quantisation: Dettmers et al. 2023, "QLoRA",
section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch

from etude.core.errors import ModelError
from etude.core.progress import Progress, SilentProgress
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.bitsandbytes import METHOD, BitsAndBytesCheckpoint
from etude.tuning.models.checkpoint import Checkpoint, fingerprint, row_slices
from etude.tuning.models.folder import FolderCheckpoint, quantization_of, read_json
from etude.tuning.models.gguf_model import GGUFCheckpoint
from etude.tuning.models.heads import CAUSAL_LM, Head, new_head_value
from etude.tuning.models.meta_model import (
    Place,
    build_meta_model,
    match_tensors,
    put,
    quantizable_linears,
)
from etude.tuning.models.pull import pull
from etude.tuning.models.sources import ModelSource, resolve
from etude.tuning.models.stored_formats import stored_formats
from etude.tuning.placement import Placement
from etude.tuning.quant import build
from etude.tuning.quant.gguf import GGUFLinear
from etude.tuning.quant.linear import CodedLinear, QuantLinear

_MOST_READERS = 4
"""Reader threads; each holds its own slices, which the memory bound includes."""


@dataclass(frozen=True)
class ModelOrigin:
    """Origin of a model's weights; an adapter is valid for these only."""

    name: str
    """The name in the recipe."""

    path: str
    """Local folder or file."""

    fingerprint: str
    """See `checkpoint.fingerprint`."""


@dataclass(frozen=True)
class LoadedModel:
    """A base model, frozen, in evaluation mode, with its tokenizer."""

    model: Any
    """The transformers model; its Linears are `QuantLinear` if it was quantised."""

    tokenizer: Any
    origin: ModelOrigin
    placement: Placement
    """Device and dtypes."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of every weight that is not quantised."""
        return self.placement.dtype

    head: Head = CAUSAL_LM


def load_model(
    spec: ModelSpec,
    quant: QuantSpec,
    progress: Progress | None = None,
    head: Head = CAUSAL_LM,
    *,
    placement: Placement | None = None,
) -> LoadedModel:
    """Load a model, fetching it first if it is not on this machine.

    Quantised is every Linear but the output head; the head and the embedding it may be tied to
    stay in the dtype of the forward pass. With `quant.kind` `native` every such Linear that is
    quantised on disk stays as it is there, see `stored_formats`; the others are plain Linears.

    Weights are quantised on the processor, whatever the device, so that their bytes are the same
    everywhere; what crosses to a GPU are codes and scales, slice by slice.

    Args:
        spec: which model.
        quant: how its Linears are held.
        progress: told of what is fetched and read.
        placement: where it goes, and in what dtype. None: as `spec` says, for an adapter.

    Args:
        spec: which model, and what it computes in.
        quant: how its Linears are held.
        progress: told of the reading.
        head: what it is to have on top; one that the checkpoint lacks is drawn from its seed.

    Raises:
        ModelError: the model is unknown, cannot be fetched, is damaged or incomplete, or cannot
            have this head; or its device is not here.
    """
    placement = placement or Placement.of(spec)
    device, dtype = placement.device, placement.dtype
    progress = progress or SilentProgress()
    source = resolve(spec.id)
    if source.path is None:
        pull(spec.id, progress)
        source = resolve(spec.id)
    with closing(open_checkpoint(source)) as checkpoint:
        # Before the weights are read, for it fails in an instant if it fails.
        tokenizer = checkpoint.tokenizer() if head.is_new else None
        pad_id = getattr(tokenizer, "pad_token_id", None)
        config = head.configure(checkpoint.config, pad_id) if head.is_new else checkpoint.config
        model = build_meta_model(config, dtype, spec.id, head)
        shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
        places = match_tensors(model, shapes, str(checkpoint.path), head)
        tokenizer = tokenizer or checkpoint.tokenizer()
        embeddings = len(model.get_input_embeddings().weight)
        if len(tokenizer) > embeddings:
            raise ModelError(
                f"{spec.id} has embeddings for {embeddings} tokens, its tokenizer knows "
                f"{len(tokenizer)}"
            )
        linears = _replace_linears(model, checkpoint, quant, placement, spec.id)
        for place in places:
            if not place.sources:
                value = new_head_value(model, place.names[0], place.shape, head.seed)
                put(model, place.names, value.to(placement.device, placement.dtype))
        places = [place for place in places if place.sources]
        total = sum(checkpoint.tensors[place.sources[0]].bytes for place in places)
        progress.start(f"Reading the weights of {spec.id}", total, "B")
        _fill_all(model, linears, places, checkpoint, placement, progress)
        progress.finish()
        generation = checkpoint.generation_config()
        origin = ModelOrigin(spec.id, str(checkpoint.path), fingerprint(checkpoint))
    if generation is not None:
        model.generation_config = generation
    # Parameters are loaded by now; buffers that no checkpoint holds, such as rotary frequencies,
    # were computed on the processor.
    model.to(device)
    model.requires_grad_(False)
    model.eval()
    return LoadedModel(model, tokenizer, origin, placement, head)


def open_checkpoint(source: ModelSource) -> Checkpoint:
    """Open the files that `source` was resolved to; the caller closes them.

    Raises:
        ModelError: they are damaged, or in a format that cannot be loaded.
    """
    assert source.path is not None, "pull first"
    if source.format == "gguf":
        return GGUFCheckpoint(source.path)
    if source.format == "safetensors":
        stated = quantization_of(read_json(source.path / "config.json"))
        coded = stated is not None and stated.get("quant_method") == METHOD
        return BitsAndBytesCheckpoint(source.path) if coded else FolderCheckpoint(source.path)
    raise ModelError(
        f"{source.name} is in CTranslate2's format: only causal language models in safetensors or "
        "GGUF can be loaded at present"
    )


def _replace_linears(
    model: Any, checkpoint: Checkpoint, quant: QuantSpec, placement: Placement, name: str
) -> dict[str, QuantLinear]:
    """Put an empty `QuantLinear` in the place of the Linears to quantise; never the output head."""
    found = quantizable_linears(model)
    if quant.kind != "none" and not found:
        raise ModelError(
            f"{name} ({type(model).__name__}) has no Linear to quantise: set quant.kind: none"
        )
    device, dtype = placement.device, placement.dtype
    kept = stored_formats(checkpoint, found, quant, name)
    replaced: dict[str, QuantLinear] = {}
    for path, linear in found.items():
        has_bias = "bias" in dict(linear.named_parameters())
        bias = torch.zeros(linear.out_features, device=device) if has_bias else None
        sizes = linear.in_features, linear.out_features
        held = kept.get(path)
        layer: QuantLinear
        if isinstance(held, str):
            layer = GGUFLinear.unfilled(*sizes, held, dtype, bias, device=device)
        elif held is not None:
            layer = build.empty_quantized(*sizes, held, dtype, bias, device=device)
        elif quant.kind not in ("native", "none"):
            layer = build.empty_quantized(*sizes, quant, dtype, bias, device=device)
        else:
            continue
        model.set_submodule(path, layer)
        replaced[path] = layer
    return replaced


def _fill_all(
    model: Any,
    linears: dict[str, QuantLinear],
    places: list[Place],
    checkpoint: Checkpoint,
    placement: Placement,
    progress: Progress,
) -> None:
    """Read every tensor into its place, several at a time.

    A thread has a tensor to itself and computes alone. Sharing each small operation among
    threads instead makes them wait for each other thousands of times: on a processor that
    others use as well, that took eight times as long.
    """
    threads = torch.get_num_threads()
    advancing = Lock()

    def advance(count: int) -> None:
        with advancing:
            progress.advance(count)

    pool = ThreadPoolExecutor(
        min(threads, _MOST_READERS), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        for done in [
            pool.submit(_fill, model, linears, place, checkpoint, placement, advance)
            for place in places
        ]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
        # A new thread takes the number that was set last, by whichever thread.
        torch.set_num_threads(threads)


def _fill(
    model: Any,
    linears: dict[str, QuantLinear],
    place: Place,
    checkpoint: Checkpoint,
    placement: Placement,
    advance: Callable[[int], None],
) -> None:
    """Read one tensor, slice by slice, into its place."""
    name = place.sources[0]
    info = checkpoint.tensors[name]
    owner, _, leaf = place.names[0].rpartition(".")
    layer = linears.get(owner) if leaf == "weight" else None
    if (
        isinstance(layer, CodedLinear)
        and isinstance(checkpoint, BitsAndBytesCheckpoint)
        and checkpoint.format_of(name) is not None
    ):
        try:
            layer.fill_codes(checkpoint.read_codes(name))
        except ModelError as error:
            raise ModelError(f"{checkpoint.path}: {name}: {error}") from None
        advance(info.bytes)
        return
    value = None
    if not layer:
        value = torch.empty(place.shape, dtype=placement.dtype, device=placement.device)
    read = checkpoint.read_rows
    if isinstance(layer, GGUFLinear) and isinstance(checkpoint, GGUFCheckpoint):
        read = checkpoint.read_blocks
    for start, stop in row_slices(info):
        rows = read(name, start, stop)
        for copy in place.sources[1:]:
            if not torch.equal(checkpoint.read_rows(copy, start, stop), rows):
                raise ModelError(
                    f"{checkpoint.path}: {copy} differs from {name}, to which its config.json ties "
                    "it: set tie_word_embeddings there to what is true"
                )
        try:
            if layer is not None:
                layer.fill_rows(start, rows)
        except ModelError as error:
            raise ModelError(f"{checkpoint.path}: {name}: {error}") from None
        if value is not None:
            (value[start:stop] if value.dim() else value).copy_(rows)
        advance((stop - start) * info.bytes // (info.shape[0] if info.shape else 1))
    if value is not None:
        put(model, place.names, value)
