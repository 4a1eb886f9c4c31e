"""Where a model is computed, and in what: device, dtype, autocast, rank.

Every other module asks here. With D the device's own arithmetic (bfloat16 where the device
multiplies it natively, else float32) and C what `model.dtype` makes of it (`auto`: D):

    LoRA, QLoRA         weights in C          no autocast
    full fine-tuning    weights in float32    autocast to C where C is not float32

`model.device: auto` is a CUDA GPU that answers and for which the Triton kernels can be compiled,
else the processor. On a GPU without those kernels plain PyTorch does the same work, many times
slower than it could, so that GPU has to be asked for by name.

Quantised weights are buffers, read by fused layers without a call of the module that holds them.
Sharded by FSDP2 they would become frozen parameters, uint8 codes and their scales, in one
`fully_shard` unit a decoder layer, which gathers them before the layer's own forward pass runs; the
reasons are in docs/explanation.md, "Sharding quantised weights".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from etude.core.errors import ModelError
from etude.core.machine import this_machine
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.kernels import triton

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Placement:
    """Where a model lies, what it computes in, and which process of a group this is."""

    device: torch.device
    """Of every weight, buffer and batch; a CUDA device has its index."""

    dtype: torch.dtype
    """Of every weight that is not quantised."""

    autocast: torch.dtype | None = None
    """What float32 weights compute in (full fine-tuning); None: in their own dtype."""

    rank: int = 0
    """Of this process, from 0."""

    world_size: int = 1
    """Processes that train together."""

    @classmethod
    def of(cls, wanted: Recipe | ModelSpec, *, full: bool = False) -> Placement:
        """Return the placement that a recipe, or a model alone, asks for on this machine.

        Args:
            wanted: a recipe, whose `adapter.kind` says whether fine-tuning is full; or a model.
            full: for a model alone: whether all of its weights are trained.

        Raises:
            ModelError: `model.device` names a device that is not here, or that is not supported.
        """
        if not isinstance(wanted, ModelSpec):
            wanted, full = wanted.model, wanted.adapter.kind == "full"
        device = choose_device(wanted.device)
        if wanted.dtype == "auto":
            compute = torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
        else:
            compute = torch.bfloat16 if wanted.dtype == "bfloat16" else torch.float32
        return cls(device, *weight_dtypes(compute, full=full), *_rank_and_world())

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the forward pass."""
        return self.autocast or self.dtype

    @property
    def emulated(self) -> bool:
        """Whether the device computes bfloat16 without instructions for it.

        On a processor with AVX2 alone, products in bfloat16 were ten to a hundred times slower
        than in float32.
        """
        return self.compute_dtype == torch.bfloat16 and not multiplies_bfloat16(self.device)

    @property
    def warning(self) -> str | None:
        """What a person should know of this placement, in a line; or None."""
        if not self.emulated:
            return None
        where = "processor" if self.device.type == "cpu" else "GPU"
        return (
            f"this {where} emulates bfloat16, many times slower than float32: model.dtype auto "
            "takes what is fast"
        )

    def autocast_context(self) -> torch.autocast:
        """Return a context in which float32 weights compute in `autocast`, if in anything else."""
        dtype = self.autocast or torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.autocast is not None)

    def memory_available(self) -> int:
        """Return the bytes that are free where the model goes."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return this_machine().memory_available

    def reset_peak_memory(self) -> None:
        """Let `peak_memory` count from now on."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> int | None:
        """Return the most bytes that tensors took on the GPU so far; None on the processor."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device)

    def as_json(self) -> dict[str, Any]:
        """Return plain data, for a run's record."""
        return {
            "device": str(self.device),
            "gpu": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None,
            "dtype": dtype_name(self.dtype),
            "autocast": self.autocast and dtype_name(self.autocast),
            "emulated": self.emulated,
            "rank": self.rank,
            "world_size": self.world_size,
        }


def choose_device(wanted: str) -> torch.device:
    """Return the device that `model.device` means on this machine.

    Raises:
        ModelError: it is not here, does not work, or is not supported.
    """
    if wanted == "auto":
        usable = _cuda_fault(0) is None and _compiles_kernels()
        return torch.device("cuda", 0) if usable else CPU
    if wanted == "mps":
        raise ModelError(
            "model.device: mps: quantised bases and fused kernels are not built for MPS; use "
            "model.device: cpu"
        )
    if wanted == "cpu":
        return CPU
    index = int(wanted.partition(":")[2] or 0)
    if (fault := _cuda_fault(index)) is not None:
        raise ModelError(f"model.device: {wanted}: {fault}; use model.device: cpu")
    return torch.device("cuda", index)


def explain_device(device: torch.device) -> str:
    """Say in words why `model.device: auto` chose `device`."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, kernels by {triton.status().reason}"
    if (fault := _cuda_fault(0)) is not None:
        return fault
    return f"no kernels for the GPU: {triton.status().reason}; model.device: cuda uses it anyway"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for products of bfloat16 numbers."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return this_machine().native_bfloat16


def weight_dtypes(compute: torch.dtype, *, full: bool) -> tuple[torch.dtype, torch.dtype | None]:
    """Return the dtype of the weights, and what they compute in where that is another.

    Full fine-tuning keeps float32 weights: steps of 1e-4 vanish in bfloat16's 8 bits.

    Args:
        compute: dtype of the forward pass.
        full: whether all weights are trained.
    """
    if not full:
        return compute, None
    return torch.float32, None if compute == torch.float32 else compute


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name as a recipe has it: `float32`, `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def _cuda_fault(index: int) -> str | None:
    """Return why a CUDA GPU cannot be used, for people; None: it can."""
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA GPU here"
    count = torch.cuda.device_count()
    if index >= count:
        return f"the last CUDA GPU here is cuda:{count - 1}"
    try:
        # A driver that does not fit PyTorch's build is found out by the first kernel only.
        torch.ones(1, device=torch.device("cuda", index)).add_(1).item()
    except RuntimeError as error:
        return f"the GPU does not work: {str(error).strip().splitlines()[0]}"
    return None


def _compiles_kernels() -> bool:
    status = triton.status()
    return status.ready and not status.interpreted


def _rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the size of its group, as PyTorch or a launcher says."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)
