"""Native GGUF Linear: a frozen weight kept in the blocks of its GGUF file.

    file ──rows of blocks──▶ codes (out, bytes of a row) ──decode──▶ Ŵ (out, in) ──▶ y = x Ŵᵀ + b

The weight is not quantised a second time: Ŵ is bit for bit the weight that an unquantised load
decodes and that llama.cpp uses. The model is therefore the one that the user already runs, and an
adapter trained on it corrects exactly that model's errors.

Blocks do not cross rows, so rows can be permuted as bytes.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from etude.core.errors import AdapterError, ModelError
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels import ops
from etude.tuning.kernels.gguf import FORMATS, dequantize_gguf
from etude.tuning.quant.linear import QuantLinear


class GGUFLinear(QuantLinear):
    """Linear with a frozen weight, (out_features, in_features), in one of GGUF's block formats.

    Buffers, all in `state_dict`:
        codes: uint8 (out_features, bytes of a row), whole blocks.
        bias: (out_features,), frozen, or None.

    Attributes:
        format: llama.cpp's name of the block format, a key of `kernels.gguf.FORMATS`.
        compute_dtype: dtype of the product; follows `.to(dtype)`, which does not change the blocks.
    """

    codes: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        format: str,  # noqa: A002 - the file's term
        compute_dtype: torch.dtype,
        bias: Tensor | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        """Create a layer without a weight; use `from_blocks` or `unfilled` instead."""
        block = FORMATS[format]
        if in_features % block.weights:
            raise ValueError(f"rows of {in_features} weights are not whole {format} blocks")
        spec = QuantSpec(kind="native")
        super().__init__(in_features, out_features, spec, compute_dtype, bias)
        self.format = format
        self._rows = out_features
        size = in_features // block.weights * block.bytes
        self.register_buffer(
            "codes", torch.empty(out_features, size, dtype=torch.uint8, device=device)
        )

    @classmethod
    def from_blocks(
        cls,
        blocks: Tensor,
        format: str,  # noqa: A002 - the file's term
        compute_dtype: torch.dtype,
        bias: Tensor | None = None,
    ) -> Self:
        """Return a layer with `blocks`, uint8 (out, bytes per row).

        Raises:
            ModelError: some weights are not finite.
        """
        out_features, size = blocks.shape
        block = FORMATS[format]
        features = size // block.bytes * block.weights
        layer = cls(features, out_features, format, compute_dtype, bias, device=blocks.device)
        layer._rows = 0
        layer.fill_rows(0, blocks)
        layer.finish()
        return layer

    @classmethod
    def unfilled(
        cls,
        in_features: int,
        out_features: int,
        format: str,  # noqa: A002 - the file's term
        compute_dtype: torch.dtype,
        bias: Tensor | None = None,
        *,
        device: torch.device | None = None,
    ) -> Self:
        """Return a layer on `device` to fill with `fill_rows`, without copying all blocks twice."""
        layer = cls(in_features, out_features, format, compute_dtype, bias, device=device)
        layer._rows = 0
        return layer

    @torch.no_grad()
    def fill_rows(self, start_row: int, rows: Tensor) -> None:
        """Take the next rows of the weight.

        Args:
            start_row: index of the first row; rows must arrive in order, each once.
            rows: uint8 (count, bytes of a row).

        Raises:
            ModelError: a row contains weights that are not finite.
        """
        stop = start_row + len(rows)
        if start_row != self._rows or stop > self.out_features or len(rows) == 0:
            raise ValueError(
                f"rows {start_row}:{stop} of {self.out_features} do not follow row {self._rows - 1}"
            )
        shape = len(rows), self.in_features
        decoded = dequantize_gguf(rows, self.format, shape, torch.float32)
        ops.refuse_non_finite(decoded, first_row=start_row)
        self.codes[start_row:stop] = rows
        self._rows = stop

    def finish(self) -> None:
        """Check that every row has arrived.

        Raises:
            ModelError: rows are missing.
        """
        if self._rows != self.out_features:
            raise ModelError(f"the weight is incomplete: {self._rows} of {self.out_features} rows")

    @property
    def quantized_bytes(self) -> int:
        """Size of the weight in bytes: that of its blocks."""
        return self.codes.numel()

    @torch.no_grad()
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the decoded weight, (out_features, in_features) in `dtype`."""
        self.finish()
        shape = self.out_features, self.in_features
        return dequantize_gguf(self.codes, self.format, shape, dtype)

    def overwrite(self, weight: Tensor) -> None:
        """Raise an error: the blocks are read-only.

        Raises:
            AdapterError: always.
        """
        del weight
        raise AdapterError(
            "this adapter.init rewrites the base, but quant.kind: native keeps the blocks of the "
            "GGUF file unchanged; use adapter.init: default, gaussian or orthogonal, or "
            "quant.kind: nf4"
        )

    def storage(self) -> str:
        """Describe how the weight is stored."""
        return self.format
