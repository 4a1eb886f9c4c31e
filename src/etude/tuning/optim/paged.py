"""Paged optimiser state: in a memory-mapped file (CPU) or in pinned host memory (CUDA).

AdamW stores two values per trained weight and accesses them once per step, so they are the first
candidates for moving out of scarce memory (Dettmers et al. 2023, "QLoRA", section 3, uses CUDA's
unified memory for this). Here the update processes the state panel by panel:

        CPU     the state is a memory-mapped file; a panel's pages are read when it is updated, and
                released afterwards. The system's page cache retains what fits.
        CUDA    the state is page-locked host memory; a panel is copied to the device, updated, and
                copied back.

The file is unnamed, so the system frees its space whenever the process ends. Its space is reserved
in advance, since a full disk under a mapping would kill the process in mid-step. Paged and resident
state give bit-identical weights.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from etude.core.errors import RunError


@dataclass(frozen=True)
class Allocation:
    """Description of an optimiser state tensor to allocate."""

    shape: Sequence[int]
    dtype: torch.dtype
    device: torch.device
    """Device of its parameter."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize


_ALIGNMENT = 64
"""Alignment in bytes of tensors in a file: a cache line."""


class StateMemory:
    """Memory of the parameters' own devices, for state that is not paged."""

    paged = False

    def zeros(self, wanted: Sequence[Allocation]) -> list[Tensor]:
        """Return tensors of zeros."""
        return [torch.zeros(tuple(t.shape), dtype=t.dtype, device=t.device) for t in wanted]

    def let_go(self) -> None:
        """Release the pages of the panel just processed."""


class PinnedMemory(StateMemory):
    """Page-locked host memory, which a CUDA device reads and writes directly."""

    paged = True

    def zeros(self, wanted: Sequence[Allocation]) -> list[Tensor]:
        """Return tensors of zeros on the host.

        Raises:
            RunError: the system cannot lock that much memory.
        """
        try:
            return [torch.zeros(tuple(t.shape), dtype=t.dtype, pin_memory=True) for t in wanted]
        except RuntimeError as error:
            raise RunError(
                f"cannot lock {_mebibytes(wanted)} of host memory for the optimiser's state "
                f"({str(error).splitlines()[0]}); free memory, or set train.paged: false"
            ) from None


class MappedFile(StateMemory):
    """Unnamed files in `folder`, mapped into memory, one per call of `zeros`.

    Args:
        folder: a directory on disk; paging to one in memory (tmpfs) would save nothing.
    """

    paged = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maps: list[mmap.mmap] = []

    def zeros(self, wanted: Sequence[Allocation]) -> list[Tensor]:
        """Return tensors of zeros in a new file.

        Raises:
            RunError: the file cannot be created, or the disk is full.
        """
        sizes = [-(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for tensor in wanted]
        if not sum(sizes):  # an empty file cannot be mapped
            return super().zeros(wanted)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                _reserve(file.fileno(), sum(sizes))
                mapped = mmap.mmap(file.fileno(), sum(sizes))
        except OSError as error:
            raise RunError(
                f"cannot store {_mebibytes(wanted)} of optimiser state in a file in {self.folder}: "
                f"{error.strerror or error}. Free some space, or set train.paged: false"
            ) from None
        self.maps.append(mapped)
        offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        return [
            torch.frombuffer(mapped, dtype=t.dtype, count=prod(t.shape), offset=offset).view(
                tuple(t.shape)
            )
            if t.nbytes
            else torch.zeros(tuple(t.shape), dtype=t.dtype)
            for t, offset in zip(wanted, offsets, strict=True)
        ]

    def let_go(self) -> None:
        """Unmap the touched pages; their contents stay in the file."""
        for mapped in self.maps:
            mapped.madvise(mmap.MADV_DONTNEED)


def paged_memory(devices: Iterable[torch.device], folder: Path | None) -> StateMemory:
    """Return the memory for paged state of parameters on `devices`, all of one type.

    Args:
        devices: devices of the parameters.
        folder: directory of the file (CPU). None: the system's temporary directory.

    Raises:
        RunError: the devices are neither CPU nor CUDA.
    """
    kinds = {device.type for device in devices}
    if kinds == {"cpu"}:
        return MappedFile(folder or Path(tempfile.gettempdir()))
    if kinds == {"cuda"}:
        return PinnedMemory()
    raise RunError(
        f"train.paged supports weights on CPU or CUDA, not on {', '.join(sorted(kinds))}; "
        "set train.paged: false"
    )


def _mebibytes(wanted: Sequence[Allocation]) -> str:
    return f"{sum(tensor.nbytes for tensor in wanted) / 2**20:.1f} MiB"


def _reserve(descriptor: int, size: int) -> None:
    """Allocate `size` bytes of zeros to an empty file."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(1 << 20)
    written = 0
    while written < size:  # a write may be cut short
        written += os.write(descriptor, zeros[: size - written])
