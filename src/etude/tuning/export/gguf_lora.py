"""Export of adapters as GGUF LoRA files for llama.cpp.

    general.type = adapter        blk.3.attn_q.weight.lora_a   A (r, in)
    adapter.type = lora           blk.3.attn_q.weight.lora_b   B (out, r)
    adapter.lora.alpha = α

For each pair llama.cpp computes y = W x + (α / r) B (A x), r being the pair's own rank and α the
file's, the same for all. So α is what most modules have (for s = α/√r, as rsLoRA scales, that is
s·r), and where a module's scale s is another one, the factor s·r/α goes into its B:

    (α / r) · [s·r/α · B] A = s · B A = ΔW

llama.cpp keeps the rows of Llama's query and key projections pair by pair; their B follows. So it
does for architectures that its converter derives from Llama's (Granite, SmolLM3). Fused projections
(Phi-3's) are single weights there as well. An embedding's A is stored transposed, (tokens, r): its
rows are looked up, not multiplied.

Facts: llama.cpp, `convert_lora_to_gguf.py`, `src/llama-adapter.cpp`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import torch
from torch import Tensor

from etude.core.atomic_files import replace_file
from etude.core.errors import AdapterError, ModelError, RunError
from etude.tuning.adapters.read import SavedAdapter, read_adapter
from etude.tuning.adapters.registry import kind
from etude.tuning.models.checkpoint import Checkpoint, fingerprint
from etude.tuning.models.gguf_model import (
    GGUF_ARCHITECTURE,
    GGUFCheckpoint,
    gguf_name,
    pairs_from_halves,
    rows_are_paired,
)
from etude.tuning.models.load import open_checkpoint
from etude.tuning.models.sources import resolve

Number = Literal["f32", "f16"]

_EMBEDDING = "token_embd.weight"

_FURTHER = {
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "granite": "granite",
    "lfm2": "lfm2",
    "olmo2": "olmo2",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
}
"""transformers' model type -> GGUF architecture, where only adapters are written, not models read.
The names of the weights are those of `gguf`'s own table."""

_PAIRED = ("granite", "smollm3")
"""Those of them whose query and key rows are stored pair by pair."""


@dataclass(frozen=True)
class GGUFLora:
    """What was written."""

    file: Path
    architecture: str
    """As GGUF calls it."""
    modules: int
    alpha: float
    """The file's α."""
    rescaled: int
    """Modules whose B took a factor, because their scale is not α / r."""
    base: str
    """The model whose names and shapes the file has."""
    trained_on_base: bool | None
    """Whether that is the model the adapter was trained on; None: the adapter does not say."""


@dataclass(frozen=True)
class _Target:
    """A weight of the base, as llama.cpp knows it."""

    name: str
    shape: tuple[int, ...]
    paired_head: int
    """Dimensions of a head whose rows are stored pair by pair; 1: rows are in order."""


def export_gguf_lora(
    adapter: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    number: Number = "f32",
    overwrite: bool = False,
) -> GGUFLora:
    """Write an adapter as a GGUF LoRA file.

    Args:
        adapter: its folder, in PEFT's format.
        output: the file to write, whole or not at all.
        model: the base; None: the one that the adapter names.
        number: how the factors are stored.
        overwrite: replace a file that is there.

    Raises:
        AdapterError: it cannot be expressed as such a file, or is for another model.
        ModelError: the base is not on this machine, or llama.cpp's names for it are not known.
        RunError: the file already exists, or cannot be written.
    """
    output = Path(output)
    if output.is_dir():
        raise RunError(f"{output} is a folder: name a file, such as {output / 'adapter.gguf'}")
    if output.exists() and not overwrite:
        raise RunError(f"{output} already exists; choose another name, or replace it with --force")
    saved = read_adapter(adapter)
    _refuse_inexpressible(saved)
    if saved.provenance is not None and saved.provenance.kept_layers is not None:
        raise AdapterError(
            f"{saved.folder} is for a model of some layers of {saved.provenance.base} "
            "(model.keep_layers), which is no file of llama.cpp's: merge the adapter (etude merge)"
        )
    name = model or _base_name(saved)
    source = resolve(name)
    if source.path is None:
        raise ModelError(f"{name} is not on this machine: run `etude models pull {name}` first")
    with closing(open_checkpoint(source)) as checkpoint:
        architecture, targets = _targets(checkpoint, name)
        same = _is_trained_on(saved, checkpoint)
    if same is False and model is None:
        raise AdapterError(
            f"{saved.folder} was trained on other weights than those of {name} on this machine; "
            "name the model to use it with by --model"
        )
    alpha, factors = _one_alpha(saved)
    tensors = _tensors(saved, factors, targets, name)
    _write(output, architecture, name, alpha, tensors, number)
    rescaled = sum(factor != 1.0 for factor in factors.values())
    return GGUFLora(output, architecture, len(factors), alpha, rescaled, name, same)


def _refuse_inexpressible(saved: SavedAdapter) -> None:
    """Refuse what is more than a pair of factors a module; llama.cpp would leave it out unsaid."""
    more = kind(saved.kind).beyond_factors
    what = saved.beside_factors or more
    if what is not None:
        raise AdapterError(
            f"{saved.folder} has {what}, which a GGUF LoRA file cannot contain; merge the adapter "
            "(etude merge) and convert the model instead"
        )


def _base_name(saved: SavedAdapter) -> str:
    name = saved.provenance.base if saved.provenance else saved.base
    if name is None:
        raise AdapterError(f"{saved.folder} does not name its base model; name it with --model")
    return name


def _targets(checkpoint: Checkpoint, name: str) -> tuple[str, Mapping[str, _Target]]:
    """Return the architecture, and what each module of the base is called in a GGUF file of it."""
    if isinstance(checkpoint, GGUFCheckpoint):
        architecture = checkpoint.architecture
    else:
        config = checkpoint.config
        every = {**GGUF_ARCHITECTURE, **_FURTHER}
        known = every.get(config.model_type)
        if known is None:
            raise ModelError(
                f"{name} is a {config.model_type} model; adapters of {', '.join(sorted(every))} "
                "models can be written for llama.cpp"
            )
        architecture = known
    names = _further_names(architecture, checkpoint)
    head = _head_dimensions(checkpoint.config)
    tied = bool(checkpoint.config.tie_word_embeddings)
    targets: dict[str, _Target] = {}
    for tensor, info in checkpoint.tensors.items():
        stored = names(tensor)
        # llama.cpp multiplies a tied head with the embedding's tensor, and its adapter, too.
        shared = stored == _EMBEDDING and tied
        if stored is not None and len(info.shape) == 2 and not shared:
            # Of the further ones, those that are paired are paired where Llama is.
            like = "llama" if architecture in _PAIRED else architecture
            paired = head if rows_are_paired(like, tensor) else 1
            targets[tensor.removesuffix(".weight")] = _Target(stored, info.shape, paired)
    return architecture, targets


def _further_names(architecture: str, checkpoint: Checkpoint) -> Callable[[str], str | None]:
    """Return the function from transformers' names of tensors to GGUF's."""
    if architecture in GGUF_ARCHITECTURE.values():
        return lambda name: gguf_name(name, architecture)
    (arch,) = (key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    table = gguf.get_tensor_name_map(arch, checkpoint.config.num_hidden_layers)
    return lambda name: table.get_name(name, try_suffixes=(".weight", ".bias"))


def _head_dimensions(config: Any) -> int:
    stated = getattr(config, "head_dim", None)
    return stated or config.hidden_size // config.num_attention_heads


def _is_trained_on(saved: SavedAdapter, checkpoint: Checkpoint) -> bool | None:
    if saved.provenance is None:
        return None
    return saved.provenance.fingerprint == fingerprint(checkpoint)


def _one_alpha(saved: SavedAdapter) -> tuple[float, dict[str, float]]:
    """Return the file's α, and by module the factor that its B takes to keep its own scale."""
    alphas = {module: part.scaling * part.rank for module, part in saved.parts.items()}
    (alpha, _), *_ = Counter(alphas.values()).most_common(1)
    return alpha, {module: own / alpha for module, own in alphas.items()}


def _tensors(
    saved: SavedAdapter,
    factors: Mapping[str, float],
    targets: Mapping[str, _Target],
    base: str,
) -> dict[str, Tensor]:
    """Return the file's tensors by name, float32.

    Raises:
        AdapterError: a module is not in the base, or of another shape.
    """
    tensors: dict[str, Tensor] = {}
    for module, pair in saved.factors.items():
        target = targets.get(module)
        if target is None:
            raise AdapterError(
                f"{saved.folder} adapts {module}, which llama.cpp has no weight of its own for in "
                f"{base}; leave it out of adapter.target_modules, or merge the adapter "
                "(etude merge)"
            )
        a, b = pair["lora_A"], pair["lora_B"]
        looked_up = target.name == _EMBEDDING
        shape = target.shape[::-1] if looked_up else target.shape
        if (b.shape[0], a.shape[1]) != shape:
            raise AdapterError(
                f"{saved.folder} is for another model: its {module} is {b.shape[0]} × "
                f"{a.shape[1]}, that of {base} {shape[0]} × {shape[1]}"
            )
        if factors[module] != 1.0:
            b = (b.double() * factors[module]).float()
        if target.paired_head > 1:
            b = pairs_from_halves(b, target.paired_head)
        tensors[f"{target.name}.lora_a"] = a.T if looked_up else a
        tensors[f"{target.name}.lora_b"] = b
    return tensors


def _write(
    output: Path,
    architecture: str,
    base: str,
    alpha: float,
    tensors: Mapping[str, Tensor],
    number: Number,
) -> None:
    half = number == "f16"
    stored = {
        name: tensor.to(torch.float16 if half else torch.float32).contiguous()
        for name, tensor in tensors.items()
    }
    overflown = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    if overflown:
        raise AdapterError(
            f"{overflown[0]} contains values beyond {number}'s range"
            f"{': write float32 (--type f32)' if half else ''}"
        )

    def write(aside: Path) -> None:
        writer = gguf.GGUFWriter(aside, architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(f"LoRA adapter of {Path(base).name}")
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, Path(base).name)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        for name, tensor in stored.items():
            writer.add_tensor(name, tensor.numpy())
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    try:
        replace_file(output, write)
    except OSError as error:
        raise RunError(
            f"cannot write {output}: {error.strerror or error}; no partial file was left"
        ) from None
