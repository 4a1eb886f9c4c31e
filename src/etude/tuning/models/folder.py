"""Model folders of transformers: `config.json`, safetensors, tokenizer.

A safetensors file is 8 bytes of length, that many bytes of JSON (name -> dtype, shape, byte range),
then the data. Large models are split into several such files, listed in
`model.safetensors.index.json`. The safetensors package maps files into memory; here slices are read
instead, see `checkpoint`.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import torch

from etude.core.errors import ModelError, innermost_reason
from etude.tuning.models.checkpoint import TensorInfo

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

# A valid header takes a few hundred bytes per tensor; the format's own limit is 100 MB.
_MOST_HEADER_BYTES = 100_000_000

# Keys of `config.json` about how it was written, not about the model.
_NOT_IDENTITY = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "use_cache")


class FolderCheckpoint:
    """A `Checkpoint` in a folder.

    Raises:
        ModelError: a file is missing, damaged or truncated, or the weights are already quantised.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw_config = read_json(path / "config.json")
        self._check_quantization(quantization_of(self._raw_config))
        self._open = ExitStack()
        self._place: dict[str, tuple[BufferedReader, int]] = {}
        tensors: dict[str, TensorInfo] = {}
        try:
            for file in self._files():
                self._read_header(file, tensors)
        except BaseException:
            self._open.close()
            raise
        self.tensors: Mapping[str, TensorInfo] = tensors

    def _check_quantization(self, stated: Mapping[str, Any] | None) -> None:
        """Refuse quantised weights in an unsupported format."""
        if stated is not None:
            method = stated.get("quant_method", "by an unnamed method")
            raise ModelError(
                f"{self.path} contains quantised weights ({method}); use the unquantised "
                "model, which is quantised on loading, or one quantised by bitsandbytes"
            )

    @cached_property
    def config(self) -> Any:
        """The transformers configuration in `config.json`."""
        import transformers

        auto: Any = transformers.AutoConfig
        try:
            return auto.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            # A configuration is checked by each model's own code, with errors of any type.
            raise ModelError(
                f"{self.path / 'config.json'} is invalid: {innermost_reason(error)}"
            ) from error

    @property
    def identity(self) -> Mapping[str, Any]:
        """`config.json` without keys that depend on the writing program."""
        return {k: v for k, v in self._raw_config.items() if k not in _NOT_IDENTITY}

    @property
    def license(self) -> str | None:
        """The licence in the front matter of the model card, `README.md`."""
        try:
            card = (self.path / "README.md").read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
        stated = re.search(r"^license: *(\S+)", front[1], re.MULTILINE) if front else None
        return stated[1] if stated else None

    @property
    def chat_template(self) -> str | None:
        """The template in `chat_template.jinja` or `tokenizer_config.json`."""
        if (self.path / "chat_template.jinja").exists():
            return (self.path / "chat_template.jinja").read_text("utf-8")
        if (self.path / "tokenizer_config.json").exists():
            template = read_json(self.path / "tokenizer_config.json").get("chat_template")
            return template if isinstance(template, str) else None
        return None

    def generation_config(self) -> Any | None:
        """Return `generation_config.json`, if there is one."""
        if not (self.path / "generation_config.json").exists():
            return None
        import transformers

        generation: Any = transformers.GenerationConfig
        return generation.from_pretrained(self.path, local_files_only=True)

    def tokenizer(self) -> Any:
        """Load the tokenizer's files."""
        import transformers

        auto: Any = transformers.AutoTokenizer
        try:
            return auto.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            # Missing or broken files raise OSError, ValueError, KeyError or bare Exception.
            raise ModelError(
                f"{self.path} has no readable tokenizer: {innermost_reason(error)}"
            ) from error

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows of a tensor along its first dimension, float32."""
        info = self.tensors[name]
        rows = (stop - start, *info.shape[1:]) if info.shape else ()
        row_bytes = info.bytes // (info.shape[0] if info.shape else 1)
        raw = self._read(name, start * row_bytes, (stop - start) * row_bytes)
        return raw.view(_DTYPES[info.format]).reshape(rows).float()

    def read_bytes(self, name: str, start: int, count: int) -> bytes:
        """Return bytes of a tensor as stored."""
        return self._read(name, start, count).numpy().tobytes()

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    def _read(self, name: str, start: int, count: int) -> torch.Tensor:
        file, offset = self._place[name]
        raw = torch.empty(count, dtype=torch.uint8)
        into: Any = raw.numpy()
        if os.preadv(file.fileno(), [into], offset + start) != count:
            raise ModelError(f"{file.name} ends inside tensor {name}: fetch it again")
        return raw

    def _files(self) -> list[Path]:
        if (self.path / SINGLE).exists():
            return [self.path / SINGLE]
        index = read_json(self.path / INDEX)
        names = cast("dict[str, str]", index.get("weight_map", {})).values()
        return [self.path / name for name in sorted(set(names))]

    def _read_header(self, path: Path, tensors: dict[str, TensorInfo]) -> None:
        try:
            file = self._open.enter_context(path.open("rb"))
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}") from None
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MOST_HEADER_BYTES):
            raise ModelError(f"{path} has a damaged or truncated header: fetch it again")
        try:
            entries: dict[str, dict[str, Any]] = json.loads(file.read(length))
            entries.pop("__metadata__", None)
            for name, entry in entries.items():
                begin, end = entry["data_offsets"]
                info = TensorInfo(tuple(entry["shape"]), entry["dtype"], end - begin)
                self._check(path, name, info, 8 + length + end, size)
                tensors[name] = info
                self._place[name] = (file, 8 + length + begin)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{path} has an invalid header: fetch it again") from None

    def _check(self, path: Path, name: str, info: TensorInfo, end: int, size: int) -> None:
        if info.format not in _DTYPES:
            raise ModelError(f"{path}: tensor {name} has unsupported format {info.format}")
        if math.prod(info.shape) * _DTYPES[info.format].itemsize != info.bytes:
            raise ModelError(f"{path} is damaged: tensor {name} has the wrong size for its shape")
        if end > size:
            raise ModelError(
                f"{path} is truncated: tensor {name} ends at byte {end:,}, the file at {size:,}; "
                "fetch it again"
            )


def quantization_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the quantisation settings in `config.json`, if any."""
    stated = config.get("quantization_config")
    return cast("Mapping[str, Any]", stated) if isinstance(stated, dict) else None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ModelError: it cannot be read, or is not a JSON object.
    """
    try:
        content: Any = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {innermost_reason(error)}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not contain a JSON object")
    return cast("dict[str, Any]", content)
