"""Export of adapters for PEFT, with packed factors decoded to float32."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from etude.core.atomic_files import replace_file, to_json
from etude.core.errors import RunError
from etude.tuning.adapters.read import PROVENANCE, read_adapter, read_json, read_tensors
from etude.tuning.adapters.save import write_adapter
from etude.tuning.adapters.saved_parts import CONFIG, WEIGHTS
from etude.tuning.config.sections.adapter import FactorSpec

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""Files of the tokenizer with the tokens that the adapter has rows for."""


@dataclass(frozen=True)
class PeftAdapter:
    """What was written."""

    folder: Path
    modules: int
    """Layers that the adapter changes."""
    was_packed: bool
    """Whether the factors were stored in few bits."""
    bytes: int
    """Of the weights' file."""


def export_peft(adapter: str | Path, output: str | Path, *, overwrite: bool = False) -> PeftAdapter:
    """Write an adapter as a folder in PEFT's format, float32.

    Args:
        adapter: its folder, factors packed or not.
        output: folder to write.
        overwrite: replace an adapter that is there.

    Raises:
        AdapterError: the adapter is damaged or not supported.
        RunError: there is something in the folder already, or it cannot be written.
    """
    output, source = Path(output), Path(adapter)
    if output.exists() and not output.is_dir():
        raise RunError(f"{output} is a file: name a folder to write")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise RunError(f"{output} already exists; choose another, or replace it with --force")
    if output.exists() and output.resolve() == source.resolve():
        raise RunError(f"{output} is the adapter itself; choose another folder")
    saved = read_adapter(source)
    tensors = read_tensors(source, saved.provenance)
    texts = {CONFIG: to_json(read_json(source / CONFIG), indent=2)}
    packed = saved.provenance is not None and saved.provenance.factors.bits is not None
    if (source / PROVENANCE).exists():
        note = {**read_json(source / PROVENANCE), "factors": FactorSpec().model_dump()}
        texts[PROVENANCE] = to_json(note, indent=2)
    write_adapter(output, WEIGHTS, tensors, texts)
    for name in TOKENIZER_FILES if saved.tokens else ():
        if (source / name).is_file():
            replace_file(output / name, partial(shutil.copyfile, source / name))
    size = (output / WEIGHTS).stat().st_size
    return PeftAdapter(output, len(saved.parts), packed, size)
