"""bitsandbytes checkpoints: model folders with 4-bit or 8-bit quantised Linears.

    q_proj.weight                                 uint8: two 4-bit codes a byte
    q_proj.weight.absmax                          float32 (blocks,), or uint8 codes of them
    q_proj.weight.nested_absmax                   float32, a scale for 256 of those codes
    q_proj.weight.quant_state.bitsandbytes__nf4   JSON: format, block, shape, offset of the scales

and in 8 bits `q_proj.weight` int8 (out, in) with `q_proj.SCB` float32 (out,). These bytes are the
same as quantising here produces, so such weights are used as they are, without requantising. The
tables in the files (`quant_map`, `nested_quant_map`) must be the known ones.

The weight counts as one tensor of the checkpoint; its companion tensors are not listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from etude.core.errors import ModelError
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels.codebooks import CODEBOOKS, DYNAMIC_BLOCK, DYNAMIC_LEVELS
from etude.tuning.models.checkpoint import TensorInfo
from etude.tuning.models.folder import FolderCheckpoint
from etude.tuning.quant import build

METHOD = "bitsandbytes"
STATE = "quant_state.bitsandbytes__"


@dataclass(frozen=True)
class _Coded:
    """One quantised weight."""

    spec: QuantSpec
    shape: tuple[int, int]
    offset: float | None
    """Mean of the scales, if they are quantised too."""


class BitsAndBytesCheckpoint(FolderCheckpoint):
    """A `Checkpoint` in a folder, its Linears in 4 or 8 bits.

    ModelError: as `FolderCheckpoint`, or the format is not one that bitsandbytes 0.50
        writes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._coded = self._find_coded()
            self._stored = self.tensors
            self.tensors = self._logical_tensors()
        except BaseException:
            self.close()
            raise

    def _check_quantization(self, stated: Mapping[str, Any] | None) -> None:
        if stated is None or stated.get("quant_method") != METHOD:
            super()._check_quantization(stated)

    @cached_property
    def config(self) -> Any:
        """The transformers configuration, without its quantisation."""
        config = super().config
        del config.quantization_config
        return config

    def format_of(self, name: str) -> QuantSpec | None:
        """Return the quantisation of a tensor; None if it is not quantised."""
        coded = self._coded.get(name)
        return coded.spec if coded else None

    def read_codes(self, name: str) -> dict[str, Tensor]:
        """Return the codes and scales of a weight by the names of `CodedLinear`'s buffers."""
        coded = self._coded[name]
        if coded.spec.kind == "int8":
            stats = f"{name.removesuffix('.weight')}.SCB"
            codes = self._whole(name).view(torch.int8)
            return {"codes": codes, "absmax": self._whole(stats).view(torch.float32)}
        absmax = self._whole(f"{name}.absmax")
        if not coded.spec.double:
            return {"codes": self._whole(name), "absmax": absmax.view(torch.float32)}
        return {
            "codes": self._whole(name),
            "absmax": absmax,
            "absmax_scales": self._whole(f"{name}.nested_absmax").view(torch.float32),
            "absmax_offset": torch.tensor(coded.offset, dtype=torch.float32),
        }

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows of a tensor, float32; a quantised tensor is decoded as a whole."""
        coded = self._coded.get(name)
        if coded is None:
            return super().read_rows(name, start, stop)
        out_features, in_features = coded.shape
        layer = build.layer_class(coded.spec).empty(
            in_features, out_features, coded.spec, torch.float32
        )
        layer.fill_codes(self.read_codes(name))
        return layer.dequantize(torch.float32)[start:stop]

    def _whole(self, name: str) -> Tensor:
        if name not in self._stored:
            raise ModelError(f"{self.path} is damaged: tensor {name} is missing")
        return self._read(name, 0, self._stored[name].bytes)

    def _find_coded(self) -> dict[str, _Coded]:
        """Read the metadata of each quantised weight, and check that its format is supported."""
        self._stored = self.tensors
        found: dict[str, _Coded] = {}
        for name, info in self.tensors.items():
            owner, mark, kind = name.rpartition(f".{STATE}")
            if mark:
                found[owner] = self._four_bits(owner, name, kind)
            elif name.endswith(".SCB"):
                weight = f"{name.removesuffix('.SCB')}.weight"
                if weight in self.tensors and len(self.tensors[weight].shape) == 2:
                    found[weight] = self._eight_bits(weight, info)
        return found

    def _four_bits(self, weight: str, state_name: str, kind: str) -> _Coded:
        try:
            state: dict[str, Any] = json.loads(self._whole(state_name).numpy().tobytes())
            shape = cast("list[int]", state["shape"])
            double = "nested_offset" in state
            spec = QuantSpec(kind=cast("Any", kind), block=state["blocksize"], double=double)
            coded = _Coded(spec, (shape[0], shape[1]), state.get("nested_offset"))
            second = state.get("nested_blocksize", DYNAMIC_BLOCK)
        except (ValueError, KeyError, TypeError, IndexError):
            raise ModelError(
                f"{self.path}: {state_name} is not in bitsandbytes' format: fetch the model again"
            ) from None
        levels = CODEBOOKS[kind].levels if kind in ("nf4", "fp4") else None
        tables = {f"{weight}.quant_map": levels}
        if double:
            tables[f"{weight}.nested_quant_map"] = DYNAMIC_LEVELS
        known = levels is not None and second == DYNAMIC_BLOCK
        for name, table in tables.items():
            # The levels are equal up to rounding in all versions.
            given = self._whole(name).view(torch.float32)
            known = known and table is not None and given.shape == table.shape
            known = known and torch.allclose(given, cast("Tensor", table), rtol=0, atol=1e-6)
        if not known:
            raise ModelError(
                f"{self.path}: {weight} is in an unknown 4-bit format ({kind}, levels or blocks "
                "of scales that bitsandbytes 0.50 does not write); use the unquantised model"
            )
        return coded

    def _eight_bits(self, weight: str, stats: TensorInfo) -> _Coded:
        info = self.tensors[weight]
        layout = f"{weight.removesuffix('.weight')}.weight_format"
        rows = layout not in self.tensors or not self._whole(layout).any()
        if info.format != "I8" or stats.format != "F32" or not rows:
            raise ModelError(
                f"{self.path}: {weight} is stored as {info.format} in a layout that bitsandbytes "
                "0.50 does not write; use the unquantised model"
            )
        return _Coded(QuantSpec(kind="int8"), (info.shape[0], info.shape[1]), None)

    def _logical_tensors(self) -> dict[str, TensorInfo]:
        companions = tuple(f"{name}." for name in self._coded)
        owners = {name.removesuffix(".weight") for name in self._coded}
        eight = {f"{owner}.{leaf}" for owner in owners for leaf in ("SCB", "weight_format")}
        logical: dict[str, TensorInfo] = {}
        for name, info in self.tensors.items():
            if name in eight or name.startswith(companions):
                continue
            if coded := self._coded.get(name):
                # One slice: blocks may cross the ends of rows.
                rows, columns = coded.shape
                logical[name] = TensorInfo((rows, columns), coded.spec.kind, info.bytes, rows)
            else:
                logical[name] = info
        return logical
