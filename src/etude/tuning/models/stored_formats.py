"""Native quantisation: weights kept in the quantised format they have on disk.

A weight already quantised on disk, in GGUF blocks or bitsandbytes codes, can be used in that format
or decoded. Quantising it again to another format adds a second error: on SmolLM2's Q4_1 file, NF4
costs 0.25 nats of loss on GSM8K. For GGUF files this is allowed, since few formats decode as fast
as NF4; a different format for existing 4-bit or 8-bit codes is refused, as nothing can be
gained.
"""

from __future__ import annotations

from collections.abc import Iterable

from etude.core.errors import ModelError
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels.gguf import FORMATS
from etude.tuning.models.bitsandbytes import BitsAndBytesCheckpoint
from etude.tuning.models.checkpoint import Checkpoint
from etude.tuning.models.gguf_file import DENSE
from etude.tuning.models.gguf_model import GGUFCheckpoint


def stored_formats(
    checkpoint: Checkpoint, linears: Iterable[str], quant: QuantSpec, name: str
) -> dict[str, str | QuantSpec]:
    """Return, by path, the format of each of `linears` that is kept as stored on disk.

    Args:
        checkpoint: the model's files.
        linears: paths of the Linears that may be quantised.
        quant: the recipe's `quant` section.
        name: name of the model, for messages.

    Returns:
        A key of `kernels.gguf.FORMATS`, or the `QuantSpec` of the codes.

    Raises:
        ModelError: the stored format does not support `quant`.
    """
    linears = list(linears)
    if isinstance(checkpoint, BitsAndBytesCheckpoint):
        return dict(_codes(checkpoint, linears, quant, name))
    if quant.kind != "native":
        return {}
    return dict(_blocks(checkpoint, linears, name))


def _codes(
    checkpoint: BitsAndBytesCheckpoint, linears: list[str], quant: QuantSpec, name: str
) -> dict[str, QuantSpec]:
    found: dict[str, QuantSpec] = {}
    for path in linears:
        # Checkpoints of a bare trunk omit the trunk's name.
        for weight in (f"{path}.weight", f"{path.partition('.')[2]}.weight"):
            if spec := checkpoint.format_of(weight):
                found[path] = spec
    coded = {weight for weight in checkpoint.tensors if checkpoint.format_of(weight)}
    if len(coded) != len(found):
        raise ModelError(
            f"{name} has quantised weights outside Linear layers; use the unquantised model"
        )
    if quant.kind == "none":
        return {}
    for path, spec in found.items():
        if quant.kind != "native" and not _same(spec, quant):
            raise ModelError(
                f"{name} stores {path} in {_words(spec)}, not in {_words(quant)}; set "
                "quant.kind: native to use its codes, or none to decode them"
            )
    return found


def _same(left: QuantSpec, right: QuantSpec) -> bool:
    if left.kind == right.kind == "int8":
        return True
    return left == right


def _words(quant: QuantSpec) -> str:
    if quant.kind == "int8":
        return "int8"
    scales = "quantised scales" if quant.double else "float32 scales"
    return f"{quant.kind}, blocks of {quant.block}, {scales}"


def _blocks(checkpoint: Checkpoint, linears: list[str], name: str) -> dict[str, str]:
    formats: dict[str, str] = {}
    if isinstance(checkpoint, GGUFCheckpoint):
        formats = {path: checkpoint.tensors[f"{path}.weight"].format for path in linears}
    blocks = {path: format_ for path, format_ in formats.items() if format_ in FORMATS}
    if set(formats.values()) <= set(DENSE):
        stored = formats or {info.format: info.format for info in checkpoint.tensors.values()}
        raise ModelError(
            f"quant.kind: native keeps weights quantised on disk (by GGUF or "
            f"bitsandbytes), but the weights of {name} are "
            f"{', '.join(sorted(set(stored.values())))}; set quant.kind: nf4 to quantise them, "
            "or none"
        )
    for path, format_ in formats.items():
        if format_ not in FORMATS and format_ not in DENSE:
            raise ModelError(
                f"{name} stores {path} in {format_}, which does not support training (supported: "
                f"{', '.join(FORMATS)}); set quant.kind: nf4 or none"
            )
    return blocks
