"""Optimiser state out of the way: in a mapped file (CPU) or in pinned host memory (CUDA).

AdamW keeps two numbers for each trained one and touches them once a step, which makes them the
first thing to move out of scarce memory (Dettmers et al. 2023, "QLoRA", section 3, does so by
CUDA's unified memory). Here the update goes through the state panel by panel:

    CPU     the state is a file, mapped into memory; a panel's pages are read when it is updated,
            and let go of after it. What the system has room for stays in its page cache.
    CUDA    the state is page-locked memory of the host; a panel is copied to the device, updated,
            and copied back.

The file has no name: the system frees its space when the process ends, however it ends. Its space
is reserved beforehand, since a full disk under a mapping would kill the process in mid-step.
Numbers do not change: paged and resident state give the same weights, bit for bit.
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
    """A tensor of an optimiser's state, to be made."""

    shape: Sequence[int]
    dtype: torch.dtype
    device: torch.device
    """Where its parameter is."""

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return prod(self.shape) * self.dtype.itemsize


_ALIGNMENT = 64
"""Bytes; tensors in a file begin at multiples of a cache line."""


class StateMemory:
    """Memory of the parameters' own devices: state that is not paged."""

    paged = False

    def zeros(self, wanted: Sequence[Allocation]) -> list[Tensor]:
        """Return tensors of zeros."""
        return [torch.zeros(tuple(t.shape), dtype=t.dtype, device=t.device) for t in wanted]

    def let_go(self) -> None:
        """Take note that the panel at hand is done with."""


class PinnedMemory(StateMemory):
    """Page-locked memory of the host, which a CUDA device reads and writes directly."""

    paged = True

    def zeros(self, wanted: Sequence[Allocation]) -> list[Tensor]:
        """Return tensors of zeros on the host.

        Raises:
            RunError: the system does not lock that much memory.
        """
        try:
            return [torch.zeros(tuple(t.shape), dtype=t.dtype, pin_memory=True) for t in wanted]
        except RuntimeError as error:
            raise RunError(
                f"cannot lock {_mebibytes(wanted)} of host memory for the optimiser's state "
                f"({str(error).splitlines()[0]}); free memory, or set train.paged: false"
            ) from None


class MappedFile(StateMemory):
    """Nameless files in `folder`, mapped into memory: one a call of `zeros`.

    Args:
        folder: on a disk; a folder that lives in memory (tmpfs) would page to where it came from.
    """

    paged = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maps: list[mmap.mmap] = []

    def zeros(self, wanted: Sequence[Allocation]) -> list[Tensor]:
        """Return tensors of zeros in a new file.

        Raises:
            RunError: the file cannot be made, or the disk has no room for it.
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
                f"cannot keep {_mebibytes(wanted)} of optimiser state in a file in {self.folder}: "
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
        """Unmap the pages that were touched; what is in them stays in the file."""
        for mapped in self.maps:
            mapped.madvise(mmap.MADV_DONTNEED)


def paged_memory(devices: Iterable[torch.device], folder: Path | None) -> StateMemory:
    """Return where the paged state of parameters on `devices` lies: all of one type.

    Args:
        devices: of the parameters.
        folder: of the file (CPU). None: the system's folder for temporary files.

    Raises:
        RunError: paging is for CPU and CUDA.
    """
    kinds = {device.type for device in devices}
    if kinds == {"cpu"}:
        return MappedFile(folder or Path(tempfile.gettempdir()))
    if kinds == {"cuda"}:
        return PinnedMemory()
    raise RunError(
        f"train.paged is for weights on the CPU or on CUDA, not on {', '.join(sorted(kinds))}; "
        "set train.paged: false"
    )


def _mebibytes(wanted: Sequence[Allocation]) -> str:
    return f"{sum(tensor.nbytes for tensor in wanted) / 2**20:.1f} MiB"


def _reserve(descriptor: int, size: int) -> None:
    """Give an empty file `size` bytes of zeros that the disk cannot run out of."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(1 << 20)
    written = 0
    while written < size:  # a write may be cut short
        written += os.write(descriptor, zeros[: size - written])
