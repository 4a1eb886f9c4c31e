"""An adapter's folder, read and checked within itself, not yet against a model.

    adapter_config.json           rank, alpha, targets: PEFT's options
    adapter_model.safetensors     base_model.model.<module>.lora_{A,B}.weight, float32
    adapter_factors.safetensors   instead of it where the factors are quantised: codes and scales
    etude.json                    base model, its fingerprint, how it was quantised, how it started

Convolutions' factors are read as matrices, embeddings' under the same names as the others'. An
AdaLoRA is read as the LoRA that it ended as, of another rank in each module.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from etude.core.errors import AdapterError
from etude.tuning.adapters.packed_factors import PACKED, unpack_factors
from etude.tuning.adapters.peft_config import CONFIG, PeftOptions, read_options
from etude.tuning.adapters.vera import Projections
from etude.tuning.config.sections.adapter import FactorSpec
from etude.tuning.config.sections.quant import QuantSpec

WEIGHTS = "adapter_model.safetensors"
PROVENANCE = "etude.json"
PREFIX = "base_model.model."

_PART_KEY = re.compile(
    r"(?P<module>.+)\.(?:(?P<factor>lora_[AB])(?P<weight>\.weight)?|lora_embedding_(?P<embedding>[AB])"
    r"|(?P<vector>lora_magnitude_vector|vera_lambda_[bd]|lora_E))"
)
_EMBEDDING_KEY = re.compile(r"(?P<module>.+)\.base_layer\.weight")


@dataclass(frozen=True)
class Provenance:
    """What an adapter was trained on."""

    base: str
    """The model's name, as the recipe said it."""
    fingerprint: str
    """Of the base's weights; see `ModelOrigin`."""
    quant: QuantSpec
    """How the base was held."""
    init: str
    """The recipe's `adapter.init`, where it took something off the base; else `default`. The
    second half of every factor is then what was taken off, with B negated."""
    factors: FactorSpec
    """How the factors were quantised."""


@dataclass(frozen=True)
class SavedPart:
    """The adapter of one module."""

    tensors: dict[str, Tensor]
    """`lora_A` (r, in) and `lora_B` (out, r), float32; DoRA's `lora_magnitude_vector` (out,);
    or VeRA's `vera_lambda_d` (r,) and `vera_lambda_b` (out,)."""
    rank: int
    alpha: float
    scaling: float
    """s in ΔW = s·B A."""


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter read from disk."""

    folder: Path
    options: PeftOptions
    kind: str
    """`lora`, `dora` or `vera`."""
    parts: dict[str, SavedPart]
    """By module."""
    not_linear: frozenset[str]
    """Those of them that are embeddings or convolutions."""
    modules: dict[str, dict[str, Tensor]]
    """Modules trained whole: by path, the tensors by their names in the module."""
    embeddings: dict[str, Tensor]
    """Base weights that PEFT stored beside an adapted embedding, by module."""
    projections: Projections | None
    """VeRA's frozen factors, where the folder has them."""
    provenance: Provenance | None
    """None where the folder was not written by Etude."""

    @property
    def base(self) -> str | None:
        """The base model's name, as the folder says it."""
        return self.options.base

    @property
    def factors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors by module."""
        return {module: part.tensors for module, part in self.parts.items()}

    @property
    def starts_off_base(self) -> bool:
        """Whether the adapter began as something that was taken off the base."""
        return self.provenance is not None and self.provenance.init != "default"


def read_adapter(folder: str | Path) -> SavedAdapter:
    """Read an adapter's folder, written by Etude or by PEFT.

    Raises:
        AdapterError: a file is missing or damaged, or an option is not supported.
    """
    folder = Path(folder)
    options = read_options(read_json(folder / CONFIG), folder)
    provenance = _read_provenance(folder)
    tensors = read_tensors(folder, provenance)
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise AdapterError(f"{folder}: {key} is no matrix of floating-point numbers")
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{folder}: {key} holds NaN or infinity")
    by_kind = _sorted(tensors, options, folder)
    parts: dict[str, SavedPart] = {}
    for module, found in by_kind.parts.items():
        part = _part(module, found, options, folder)
        if part is not None:
            parts[module] = part
    if not parts and not by_kind.modules:
        raise AdapterError(f"{folder}: {WEIGHTS} is empty")
    return SavedAdapter(
        folder=folder,
        options=options,
        kind="lora" if options.kind == "adalora" else options.kind,
        parts=parts,
        not_linear=frozenset(by_kind.not_linear),
        modules=by_kind.modules,
        embeddings=by_kind.embeddings,
        projections=_projections(by_kind.shared, parts, options, folder),
        provenance=provenance,
    )


@dataclass(frozen=True)
class _Sorted:
    parts: dict[str, dict[str, Tensor]]
    modules: dict[str, dict[str, Tensor]]
    embeddings: dict[str, Tensor]
    shared: dict[str, Tensor]
    not_linear: set[str]


def _sorted(tensors: dict[str, Tensor], options: PeftOptions, folder: Path) -> _Sorted:
    """Sort the tensors by what they are.

    Raises:
        AdapterError: a key is of another kind.
    """
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    embeddings: dict[str, Tensor] = {}
    shared: dict[str, Tensor] = {}
    not_linear: set[str] = set()
    unexpected: list[str] = []
    for key, tensor in tensors.items():
        if key in ("base_model.vera_A", "base_model.vera_B"):
            shared[key[-1]] = tensor.float()
            continue
        name = key.removeprefix(PREFIX)
        match = _PART_KEY.fullmatch(name)
        owner, leaf = _saved_owner(name, options.saved)
        if not key.startswith(PREFIX):
            unexpected.append(key)
        elif match is not None:
            factor = match["factor"] or match["vector"] or f"lora_{match['embedding']}"
            matrix = tensor.float()
            # A convolution's: (r, channels, kernel) and (out, r, 1).
            flat = match["weight"] and matrix.dim() > 2
            if flat or match["embedding"]:
                not_linear.add(match["module"])
            parts[match["module"]][factor] = matrix.flatten(1) if flat else matrix
        elif (stored := _EMBEDDING_KEY.fullmatch(name)) is not None:
            embeddings[stored["module"]] = tensor
        elif owner:
            modules[owner][leaf] = tensor.float()
        else:
            unexpected.append(key)
    if unexpected:
        raise AdapterError(f"{folder}: unexpected in {WEIGHTS}: {listed(unexpected)}")
    return _Sorted(dict(parts), dict(modules), embeddings, shared, not_linear)


def _saved_owner(name: str, saved: list[str]) -> tuple[str, str]:
    """Return the path of the module trained whole that `name` is a tensor of, and the rest."""
    owner = name.rpartition(".")[0]
    while owner:
        if any(owner == entry or owner.endswith(f".{entry}") for entry in saved):
            return owner, name.removeprefix(f"{owner}.")
        owner = owner.rpartition(".")[0]
    return "", ""


def _part(
    module: str, found: dict[str, Tensor], options: PeftOptions, folder: Path
) -> SavedPart | None:
    """Check one module's tensors; None for an AdaLoRA module of which no rank is left.

    Raises:
        AdapterError: one is missing, or does not fit the others or the configuration.
    """
    wanted = {
        "lora": ("lora_A", "lora_B"),
        "dora": ("lora_A", "lora_B", "lora_magnitude_vector"),
        "vera": ("vera_lambda_b", "vera_lambda_d"),
        "adalora": ("lora_A", "lora_B", "lora_E"),
    }[options.kind]
    missing = [
        f"{PREFIX}{module}.{name}{'.weight' if name in ('lora_A', 'lora_B') else ''}"
        for name in wanted
        if name not in found
    ]
    if missing:
        raise AdapterError(f"{folder}: missing from {WEIGHTS}: {listed(missing)}")
    if set(found) != set(wanted):
        extra = [f"{module}.{name}" for name in found if name not in wanted]
        raise AdapterError(f"{folder}: unexpected in {WEIGHTS}: {listed(extra)}")
    if options.kind == "vera":
        rank = len(found["vera_lambda_d"])
        return SavedPart(found, rank, float(rank), 1.0)
    A, B = found["lora_A"], found["lora_B"]
    for name, factor in (("lora_A", A), ("lora_B", B)):
        if factor.dim() != 2:
            raise AdapterError(f"{folder}: {module}.{name} is no matrix of floating-point numbers")
    rank = len(A)
    named = options.rank_of(module)
    if options.kind != "adalora" and (rank != named or B.shape[1] != named):
        other = rank if rank != named else B.shape[1]
        raise AdapterError(f"{folder}: {module} has rank {other}, {CONFIG} says {named}")
    if options.kind == "adalora":
        scaling = options.scaling(module, rank)
        kept = found["lora_E"].view(-1) != 0
        if not kept.any():
            return None
        pair = {"lora_A": (found["lora_E"].view(-1, 1) * A)[kept], "lora_B": B[:, kept]}
        left = int(kept.sum())
        return SavedPart(pair, left, scaling * left, scaling)
    tensors = {**found, "lora_A": A, "lora_B": B}
    return SavedPart(tensors, rank, options.alpha_of(module), options.scaling(module, rank))


def _projections(
    shared: dict[str, Tensor], parts: dict[str, SavedPart], options: PeftOptions, folder: Path
) -> Projections | None:
    if options.kind != "vera":
        if shared:
            raise AdapterError(f"{folder}: vera_A in {WEIGHTS}, but this is no VeRA adapter")
        return None
    if not shared:
        return None  # drawn from the seed, once the model's sizes are known
    if set(shared) != {"A", "B"} or len(shared["A"]) != options.rank:
        raise AdapterError(f"{folder}: vera_A and vera_B do not fit rank {options.rank}")
    del parts
    return Projections(shared["A"], shared["B"])


def read_json(file: Path) -> dict[str, Any]:
    """Read one of an adapter's small files.

    Raises:
        AdapterError: it is missing, or no JSON object.
    """
    try:
        content: Any = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{file.parent} holds no adapter: {file.name} is missing") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise AdapterError(f"cannot read {file}: {reason}") from None
    if not isinstance(content, dict):
        raise AdapterError(f"{file} is damaged: it is JSON, but no object")
    return cast("dict[str, Any]", content)


def read_tensors(folder: Path, provenance: Provenance | None) -> dict[str, Tensor]:
    """Read an adapter's tensors by PEFT's names, packed factors decoded.

    Raises:
        AdapterError: the file is missing or damaged.
    """
    file = folder / WEIGHTS
    packed = folder / PACKED
    if packed.exists() and provenance is not None and provenance.factors.bits is not None:
        return unpack_factors(_open(packed), provenance.factors, packed)
    if not file.exists():
        pickled = (folder / "adapter_model.bin").exists()
        why = "only a pickle, adapter_model.bin; save it again as safetensors" if pickled else ""
        raise AdapterError(f"{folder} holds no {WEIGHTS}{why and ', '}{why}")
    return _open(file)


def _open(file: Path) -> dict[str, Tensor]:
    try:
        with cast("Any", safe_open)(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(f"{file} is damaged or cut short: {reason}") from None


def _read_provenance(folder: Path) -> Provenance | None:
    file = folder / PROVENANCE
    if not file.exists():
        return None
    content = read_json(file)
    try:
        base = content["base"]
        quant = QuantSpec.model_validate(content["quant"])
        factors = FactorSpec.model_validate(content.get("factors", {}))
        # The file says `start`, as it has since 0.1.0, so that older versions read it too.
        init = str(content.get("start", "default"))
        return Provenance(str(base["name"]), str(base["fingerprint"]), quant, init, factors)
    except (KeyError, TypeError, ValueError):
        raise AdapterError(
            f"{file} is damaged; restore it, or delete it to load the adapter unchecked"
        ) from None


def listed(names: list[str], count: int = 4) -> str:
    """Write out the first names and count the others."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
