"""Reading adapter folders, and checking their consistency (not yet against a model).

    adapter_config.json           rank, alpha, targets: PEFT's options
    adapter_model.safetensors     base_model.model.<module>.lora_{A,B}.weight, float32
    adapter_factors.safetensors   replaces it if the factors are quantised: codes and scales
    etude.json                    base model, fingerprint, quantisation, adapter.init

Factors of convolutions are read as matrices, those of embeddings under the same names as others. An
AdaLoRA is read as its equivalent LoRA, with a different rank in each module.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from etude.core.errors import AdapterError
from etude.tuning.adapters.packed_factors import PACKED, unpack_factors
from etude.tuning.adapters.peft_config import peft_initialisation, read_options
from etude.tuning.adapters.registry import AdapterKind, AdapterTensor, kind, kinds
from etude.tuning.adapters.saved_parts import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    PeftOptions,
    SavedPart,
    listed,
)
from etude.tuning.config.sections.adapter import FactorSpec
from etude.tuning.config.sections.quant import QuantSpec

PROVENANCE = "etude.json"

_EMBEDDING_KEY = re.compile(r"(?P<module>.+)\.base_layer\.weight")
_BIAS_KEY = re.compile(r"(?P<module>.+?)(\.base_layer)?\.bias")
_NOTHING = torch.empty(0)
_TOKENS_KEY = re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta")


@dataclass(frozen=True)
class Provenance:
    """Provenance of an adapter: the base it was trained on."""

    base: str
    """The model's name in the recipe."""
    fingerprint: str
    """Fingerprint of the base's weights; see `ModelOrigin`."""
    quant: QuantSpec
    """Quantisation of the base."""
    init: str
    """The recipe's `adapter.init`, if it subtracted a part from the base; else `default`. In the
    former case the second half of every factor is the subtracted part, with B negated."""
    factors: FactorSpec
    """Quantisation of the factors."""
    kept_layers: list[int] | None = None
    """Numbers of the base's layers that the model has; None: all."""


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter read from disk."""

    folder: Path
    options: PeftOptions
    kind: str
    """Name of the kind it is read as; an AdaLoRA is read as `lora`."""
    parts: dict[str, SavedPart]
    """Parts by module."""
    not_linear: frozenset[str]
    """Modules that are embeddings or convolutions."""
    modules: dict[str, dict[str, Tensor]]
    """Fully trained modules: by path, the tensors by their names in the module."""
    biases: dict[str, Tensor]
    """Trained biases, (out,) float32, by module."""
    tokens: dict[str, Tensor]
    """Trained rows of an embedding, (tokens, width) float32, by module; `options.tokens` says
    which."""
    embeddings: dict[str, Tensor]
    """Base weights that PEFT stored beside an adapted embedding, by module."""
    shared: dict[str, Tensor]
    """Tensors shared by all modules, by name in the file: VeRA's frozen factors."""
    stacked: dict[str, dict[str, Tensor]]
    """Tensors of experts' weights (`target_parameters`), by PEFT's wrapper: of which weight one is,
    a model tells (`compatibility.with_experts`)."""
    provenance: Provenance | None
    """None if the folder was not written by Etude."""

    @property
    def base(self) -> str | None:
        """The base model's name according to the folder."""
        return self.options.base

    @property
    def factors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors by module."""
        return {module: part.tensors for module, part in self.parts.items()}

    @property
    def beside_factors(self) -> str | None:
        """What it has beside the factors, for messages: modules trained whole, ...; or None."""
        if self.modules:
            return "modules trained whole"
        if self.biases:
            return "trained biases"
        if self.tokens:
            return "trained rows of an embedding"
        if self.stacked:
            return "factors of stacked experts"
        changed = peft_initialisation(self.options.config)
        return f"factors relative to a base that {changed} changes" if changed else None

    @property
    def only_modules_beside(self) -> bool:
        """Whether modules trained whole are all that it has beside the factors."""
        others = self.biases or self.tokens or self.stacked
        return not others and peft_initialisation(self.options.config) is None

    @property
    def starts_off_base(self) -> bool:
        """Whether the initialisation subtracted a part from the base."""
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
            raise AdapterError(f"{folder}: {key} is not a floating-point matrix")
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{folder}: {key} holds NaN or infinity")
    own = kind(options.kind)
    by_kind = _sorted(tensors, options, own)
    own.check_shared(by_kind.shared, options)
    parts: dict[str, SavedPart] = {}
    stacked: dict[str, dict[str, Tensor]] = {}
    for module, found in by_kind.parts.items():
        _check_names(module, found, own, folder)
        if options.is_stacked(module):
            stacked[module] = found
            continue
        part = own.read_part(module, found, options)
        if part is not None:
            parts[module] = part
    if not stacked and any(not name.endswith(".weight") for name in options.parameters):
        raise AdapterError(f"{folder}: target_parameters are not in {WEIGHTS}")
    if not (parts or stacked or by_kind.modules or by_kind.tokens):
        raise AdapterError(f"{folder}: {WEIGHTS} is empty")
    return SavedAdapter(
        folder=folder,
        options=options,
        kind=own.read_as or own.name,
        parts=parts,
        not_linear=frozenset(by_kind.not_linear),
        modules=by_kind.modules,
        biases=by_kind.biases,
        tokens=by_kind.tokens,
        embeddings=by_kind.embeddings,
        shared=by_kind.shared,
        stacked=stacked,
        provenance=provenance,
    )


@dataclass(frozen=True)
class _Sorted:
    parts: dict[str, dict[str, Tensor]]
    modules: dict[str, dict[str, Tensor]]
    biases: dict[str, Tensor]
    tokens: dict[str, Tensor]
    embeddings: dict[str, Tensor]
    shared: dict[str, Tensor]
    not_linear: set[str]


def _sorted(tensors: dict[str, Tensor], options: PeftOptions, own: AdapterKind) -> _Sorted:
    """Sort the tensors by role.

    Raises:
        AdapterError: a key does not belong to this kind.
    """
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    biases: dict[str, Tensor] = {}
    tokens: dict[str, Tensor] = {}
    embeddings: dict[str, Tensor] = {}
    shared: dict[str, Tensor] = {}
    not_linear: set[str] = set()
    unexpected: list[str] = []
    part_key, endings = _part_keys()
    for key, tensor in tensors.items():
        if key in own.shared_keys:
            shared[key] = tensor.float()
            continue
        name = key.removeprefix(PREFIX)
        match = part_key.fullmatch(name)
        owner, leaf = _saved_owner(name, options.saved)
        if not key.startswith(PREFIX):
            unexpected.append(key)
        elif match is not None:
            ending = match["ending"]
            trained = endings[ending]
            matrix = tensor.float()
            # Of a convolution: (r, channels, kernel) and (out, r, 1).
            flat = ending.endswith(".weight") and matrix.dim() > 2
            if flat or ending == trained.embedding:
                not_linear.add(match["module"])
            parts[match["module"]][trained.name] = matrix.flatten(1) if flat else matrix
        elif (stored := _EMBEDDING_KEY.fullmatch(name)) is not None:
            # Beside trained rows of a matrix that was resized, PEFT stores all of it.
            embeddings[stored["module"].removesuffix(".token_adapter")] = tensor
        elif (trained_rows := _TOKENS_KEY.fullmatch(name)) is not None and options.tokens:
            tokens[trained_rows["module"]] = tensor.float()
        elif owner:
            # Where biases are trained, PEFT saves this module's three times.
            if not leaf.startswith(("original_module.", "modules_to_save.")):
                modules[owner][leaf] = tensor.float()
        elif (bias := _BIAS_KEY.fullmatch(name)) is not None and options.bias != "none":
            biases[bias["module"]] = tensor.float()
        else:
            unexpected.append(key)
    if options.config.get("ensure_weight_tying"):
        # PEFT saves the copy of a tie for both modules, and names one of them.
        for key in list(unexpected):
            owner, _, leaf = key.removeprefix(PREFIX).rpartition(".")
            if any(
                torch.equal(tensors[key].float(), one.get(leaf, _NOTHING))
                for one in list(modules.values())
            ):
                modules[owner][leaf] = tensors[key].float()
                unexpected.remove(key)
    if unexpected:
        raise AdapterError(f"{options.folder}: unexpected in {WEIGHTS}: {listed(unexpected)}")
    return _Sorted(dict(parts), dict(modules), biases, tokens, embeddings, shared, not_linear)


@cache
def _part_keys() -> tuple[re.Pattern[str], dict[str, AdapterTensor]]:
    """Return a pattern of module keys of all kinds, and the tensor for each ending."""
    endings = {e: tensor for one in kinds() for tensor in one.tensors for e in tensor.endings}
    either = "|".join(map(re.escape, endings))
    return re.compile(rf"(?P<module>.+)\.(?P<ending>{either})"), endings


def _saved_owner(name: str, saved: list[str]) -> tuple[str, str]:
    """Split the name of a tensor of a fully trained module into its path and the rest.

    As in PEFT, an entry names every module whose path ends in its letters: `norm` is a
    `post_attention_layernorm` too. The longest path counts.
    """
    owner = name.rpartition(".")[0]
    while owner:
        if owner.endswith(tuple(saved)):
            return owner, name.removeprefix(f"{owner}.")
        owner = owner.rpartition(".")[0]
    return "", ""


def _check_names(module: str, found: dict[str, Tensor], own: AdapterKind, folder: Path) -> None:
    """Check that a module has exactly the tensors of its kind.

    Raises:
        AdapterError: a tensor is missing or unexpected.
    """
    wanted = {tensor.name: tensor.ending for tensor in own.tensors}
    missing = [f"{PREFIX}{module}.{ending}" for n, ending in wanted.items() if n not in found]
    if missing:
        raise AdapterError(f"{folder}: missing from {WEIGHTS}: {listed(missing)}")
    extra = [f"{module}.{name}" for name in found if name not in wanted]
    if extra:
        raise AdapterError(f"{folder}: unexpected in {WEIGHTS}: {listed(extra)}")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file of an adapter.

    Raises:
        AdapterError: it is missing, or not a JSON object.
    """
    try:
        content: Any = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{file.parent} contains no adapter: {file.name} is missing") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise AdapterError(f"cannot read {file}: {reason}") from None
    if not isinstance(content, dict):
        raise AdapterError(f"{file} is damaged: expected a JSON object")
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
        why = "only a pickle, adapter_model.bin; convert it to safetensors" if pickled else ""
        raise AdapterError(f"{folder} contains no {WEIGHTS}{why and ', '}{why}")
    return _open(file)


def _open(file: Path) -> dict[str, Tensor]:
    try:
        with cast("Any", safe_open)(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterError(f"{file} is damaged or truncated: {reason}") from None


def _read_provenance(folder: Path) -> Provenance | None:
    file = folder / PROVENANCE
    if not file.exists():
        return None
    content = read_json(file)
    try:
        base = content["base"]
        quant = QuantSpec.model_validate(content["quant"])
        factors = FactorSpec.model_validate(content.get("factors", {}))
        # The key is `start`, as since 0.1.0, so that older versions can read it.
        init = str(content.get("start", "default"))
        kept = dict(base).get("kept_layers")  # what is no object is damaged
        layers = None if kept is None else [int(number) for number in kept]
        return Provenance(str(base["name"]), str(base["fingerprint"]), quant, init, factors, layers)
    except (KeyError, TypeError, ValueError):
        raise AdapterError(
            f"{file} is damaged; restore it, or delete it to load the adapter without checks"
        ) from None
