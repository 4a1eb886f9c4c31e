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

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import torch
from transformers.pytorch_utils import Conv1D

from etude.core.errors import ModelError
from etude.core.progress import Progress, SilentProgress
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.images.preparation import Preparation
from etude.tuning.models import hub
from etude.tuning.models.added_tokens import NO_TOKENS, AddedTokens, add_tokens, rooms, take_rows
from etude.tuning.models.batch_norm import freeze_statistics
from etude.tuning.models.bitsandbytes import METHOD, BitsAndBytesCheckpoint
from etude.tuning.models.catalog import CATALOG
from etude.tuning.models.checkpoint import Checkpoint, fingerprint, row_slices
from etude.tuning.models.cut import CutCheckpoint, kept_layers
from etude.tuning.models.efficientnet_lite import EfficientNetLiteCheckpoint
from etude.tuning.models.folder import FolderCheckpoint, quantization_of, read_json
from etude.tuning.models.gguf_model import GGUFCheckpoint
from etude.tuning.models.heads import CAUSAL_LM, Head, new_head_value
from etude.tuning.models.mapped_names import MappedCheckpoint, with_model_names
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

    kept_layers: tuple[int, ...] | None = None
    """Numbers of its layers that the model has; None: all."""

    @property
    def published(self) -> tuple[str, str | None]:
        """What other programs know the model by, and its revision, if both are known.

        The hub id of what an alias stands for or of a model in the hub's cache, else the absolute
        path of a folder or file. A model cut from it is not published: its name is none of a model,
        so that no program puts the adapter on the whole one.
        """
        if self.kept_layers is not None:
            return f"{self.name}, layers {', '.join(map(str, self.kept_layers))}", None
        if self.name in CATALOG and CATALOG[self.name].hub_id:
            return CATALOG[self.name].hub_id, None
        path = Path(self.path)
        if hub.is_hub_id(self.name) and path.parent.name == "snapshots":
            return self.name, path.name
        if path.exists():
            return str(path.resolve()), None
        return self.name, None


class ModelFiles:
    """The files of one model, opened once and handed on to all that read them.

    Use as a context manager. The files are opened when they are first read. It may be entered again
    while it is entered, and closes the files when it is left for the last time.

    Args:
        name: of the model, as the recipe says it.
        keep_layers: the recipe's `model.keep_layers`.

    Raises:
        ModelError: no model has that name.
    """

    def __init__(self, name: str, keep_layers: int | list[int] | None = None) -> None:
        self.source = resolve(name)
        self._keep_layers = keep_layers
        self._users = 0
        self._checkpoint: Checkpoint | None = None
        self._named: Checkpoint | None = None
        self.transposed: frozenset[str] = frozenset()
        """Paths of quantised layers whose weight is (in, out) on disk."""

    def __enter__(self) -> Self:
        self._users += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._users -= 1
        if self._users == 0 and self._checkpoint is not None:
            self._checkpoint.close()
            self._checkpoint = None

    @property
    def name(self) -> str:
        """As the recipe says it."""
        return self.source.name

    @property
    def are_here(self) -> bool:
        """Whether they are on this machine."""
        return self.source.path is not None and self.source.path.exists()

    def fetch(self, progress: Progress) -> None:
        """Fetch them if they are not on this machine.

        Raises:
            ModelError: they cannot be fetched.
        """
        if self.source.path is None:
            pull(self.name, progress)
            self.source = resolve(self.name)

    @property
    def checkpoint(self) -> Checkpoint:
        """The open files.

        Raises:
            ModelError: they are not on this machine, are damaged, or are in a format that cannot
                be loaded.
        """
        assert self._users, "open only within `with`"
        if self._checkpoint is None:
            if not self.are_here:
                raise ModelError(
                    f"{self.name} is not on this machine, and its weights are needed: "
                    f"etude models pull {self.name}"
                )
            whole = open_checkpoint(self.source)
            if self._keep_layers is None:
                self._checkpoint = whole
                return whole
            try:
                kept = kept_layers(self._keep_layers, whole.config, self.name)
                self._checkpoint = CutCheckpoint(whole, kept)
            except ModelError:
                whole.close()  # or whoever asks again would get the whole model
                raise
        return self._checkpoint

    def named_for(self, model: Any) -> Checkpoint:
        """Return the open files with the names of `model`, and keep them for later readers.

        Raises:
            ModelError: as `with_model_names`.
        """
        self._named = with_model_names(self.checkpoint, model)
        return self._named

    @property
    def named(self) -> Checkpoint:
        """The open files, with the names of the model that was loaded from them."""
        checkpoint = self.checkpoint
        named = self._named
        if isinstance(named, MappedCheckpoint):
            return named.reopened(checkpoint)
        return checkpoint

    @cached_property
    def config(self) -> Any:
        """The transformers configuration; readers copy it before they change it."""
        return self.checkpoint.config

    @cached_property
    def origin(self) -> ModelOrigin:
        """Which weights these are; the files are read for it once."""
        checkpoint = self.checkpoint
        kept = checkpoint.kept if isinstance(checkpoint, CutCheckpoint) else None
        return ModelOrigin(self.name, str(checkpoint.path), fingerprint(checkpoint), kept)


@dataclass(frozen=True)
class LoadedModel:
    """A base model, frozen, in evaluation mode, with its tokenizer."""

    model: Any
    """The transformers model; its Linears are `QuantLinear` if it was quantised."""

    tokenizer: Any
    """Its tokenizer; of a model of images their preparation, `images.preparation.Preparation`."""
    files: ModelFiles
    """What it was read from; open as long as whoever opened it wants."""

    origin: ModelOrigin
    placement: Placement
    """Device and dtypes."""

    head: Head = CAUSAL_LM

    added: AddedTokens = NO_TOKENS
    """Tokens that the recipe added to the vocabulary."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of every weight that is not quantised."""
        return self.placement.dtype


def load_model(
    spec: ModelSpec,
    quant: QuantSpec,
    progress: Progress | None = None,
    head: Head = CAUSAL_LM,
    *,
    placement: Placement | None = None,
    files: ModelFiles | None = None,
) -> LoadedModel:
    """Load a model, fetching it first if it is not on this machine.

    Quantised is every Linear but the output head; the head and the embedding it may be tied to
    stay in the dtype of the forward pass. With `quant.kind` `native` every such Linear that is
    quantised on disk stays as it is there, see `stored_formats`; the others are plain Linears.

    Weights are quantised on the processor, whatever the device, so that their bytes are the same
    everywhere; what crosses to a GPU are codes and scales, slice by slice.

    Args:
        spec: which model, and what it computes in.
        quant: how its Linears are held.
        progress: told of what is fetched and read.
        head: what it is to have on top; one that the checkpoint lacks is drawn from its seed.
        placement: where it goes, and in what dtype. None: as `spec` says, for an adapter.
        files: those of `spec.id`, where they are open already.

    Raises:
        ModelError: the model is unknown, cannot be fetched, is damaged or incomplete, or cannot
            have this head; or its device is not here.
    """
    placement = placement or Placement.of(spec)
    device, dtype = placement.device, placement.dtype
    progress = progress or SilentProgress()
    files = files or ModelFiles(spec.id, spec.keep_layers)
    files.fetch(progress)
    with files:
        checkpoint = files.checkpoint
        # Before the weights are read, for it fails in an instant if it fails.
        tokenizer: Any = None
        if head.sees_images:
            tokenizer = Preparation.read(checkpoint.path, files.config)
        elif head.is_new:
            tokenizer = checkpoint.tokenizer()
        pad_id = getattr(tokenizer, "pad_token_id", None)
        config = head.configure(files.config, pad_id) if head.is_new else files.config
        model = build_meta_model(config, dtype, spec.id, head)
        checkpoint = files.named_for(model)
        shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
        places = match_tensors(model, shapes, str(checkpoint.path), head)
        added, room = NO_TOKENS, dict[str, int]()
        if not head.sees_images:
            tokenizer = tokenizer or checkpoint.tokenizer()
            _require_embeddings(model, tokenizer, spec.id)
            added = add_tokens(tokenizer, spec)
            room = rooms(model, added)
        linears = _replace_linears(model, checkpoint, quant, placement, spec.id)
        files.transposed = frozenset(path for path, one in linears.items() if one.from_conv1d)
        for place in places:
            if not place.sources:
                value = new_head_value(model, place.names[0], place.shape, head.seed)
                put(model, place.names, value.to(placement.device, placement.dtype))
        places = [place for place in places if place.sources]
        total = sum(checkpoint.tensors[place.sources[0]].bytes for place in places)
        progress.start(f"Reading the weights of {spec.id}", total, "B")
        _fill_all(model, linears, places, checkpoint, placement, progress, room)
        progress.finish()
        take_rows(model, room)
        generation = checkpoint.generation_config()
        origin = files.origin
    if generation is not None:
        model.generation_config = generation
    # Parameters are loaded by now; buffers that no checkpoint holds, such as rotary frequencies,
    # were computed on the processor.
    model.to(device)
    freeze_statistics(model)
    model.requires_grad_(False)
    model.eval()
    return LoadedModel(model, tokenizer, files, origin, placement, head, added)


def _require_embeddings(model: Any, tokenizer: Any, name: str) -> None:
    embeddings = len(model.get_input_embeddings().weight)
    if len(tokenizer) > embeddings:
        raise ModelError(
            f"{name} has embeddings for {embeddings} tokens, its tokenizer knows {len(tokenizer)}"
        )


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
    if source.format == "efficientnet-lite":
        return EfficientNetLiteCheckpoint(source.path)
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
        transposed = isinstance(model.get_submodule(path), Conv1D)
        if transposed and held is not None:
            raise ModelError(
                f"{name} has the quantised weight of a Conv1D ({path}), which cannot be read; use "
                "the unquantised model, which is quantised on loading"
            )
        if isinstance(held, str):
            layer = GGUFLinear.unfilled(*sizes, held, dtype, bias, device=device)
        elif held is not None:
            layer = build.empty_quantized(*sizes, held, dtype, bias, device=device)
        elif quant.kind not in ("native", "none"):
            layer = build.empty_quantized(*sizes, quant, dtype, bias, device=device)
        else:
            continue
        layer.from_conv1d = transposed
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
    room: Mapping[str, int],
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
            pool.submit(
                *(_fill, model, linears, place, checkpoint, placement, advance),
                max(room.get(name, 0) for name in place.names),
            )
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
    room: int = 0,
) -> None:
    """Read one tensor, slice by slice, into its place, with `room` for further rows at its end."""
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
    if layer is None or layer.from_conv1d:
        dtype = placement.dtype if layer is None else torch.float32
        shape = (place.shape[0] + room, *place.shape[1:]) if room else place.shape
        value = torch.empty(shape, dtype=dtype, device=placement.device)
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
            if layer is not None and not layer.from_conv1d:
                layer.fill_rows(start, rows)
        except ModelError as error:
            raise ModelError(f"{checkpoint.path}: {name}: {error}") from None
        if value is not None:
            (value[start:stop] if value.dim() else value).copy_(rows)
        advance((stop - start) * info.bytes // (info.shape[0] if info.shape else 1))
    if layer is not None and value is not None:
        _fill_transposed(layer, value, f"{checkpoint.path}: {name}")
    elif value is not None:
        put(model, place.names, value)


def _fill_transposed(layer: QuantLinear, value: torch.Tensor, origin: str) -> None:
    """Quantise a Conv1D's weight, (in, out): its rows are whole only when all of it is read."""
    try:
        layer.fill_rows(0, value.T.contiguous().cpu())
    except ModelError as error:
        raise ModelError(f"{origin}: {error}") from None
