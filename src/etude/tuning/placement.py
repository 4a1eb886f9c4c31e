"""Device placement: the device, dtypes, autocast and rank of a run.

All other modules get these from here. With D the device's native dtype (bfloat16 where the device
multiplies it natively, else float32) and C what `model.dtype` makes of it (`auto`: D):

    LoRA, QLoRA         weights in C          no autocast
    full fine-tuning    weights in float32    autocast to C where C is not float32

`model.device: auto` is a CUDA GPU that answers and for which the Triton kernels can be compiled,
else the CPU. On a GPU without those kernels plain PyTorch does the same work many times more
slowly, so such a GPU has to be selected explicitly.

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

from etude.core import waiting
from etude.core.errors import ModelError
from etude.core.machine import this_machine
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.kernels import triton

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Placement:
    """Device and dtypes of a model, and this process's rank in its group."""

    device: torch.device
    """Device of every weight, buffer and batch; a CUDA device has its index."""

    dtype: torch.dtype
    """Dtype of every weight that is not quantised."""

    autocast: torch.dtype | None = None
    """Autocast dtype of float32 weights (full fine-tuning); None: no autocast."""

    rank: int = 0
    """Rank of this process, from 0."""

    world_size: int = 1
    """Number of processes that train together."""

    @classmethod
    def of(cls, wanted: Recipe | ModelSpec, *, full: bool = False) -> Placement:
        """Return the placement for a recipe, or for a model alone, on this machine.

        Args:
            wanted: a recipe, whose `adapter.kind` says whether fine-tuning is full; or a model.
            full: for a model alone: whether all of its weights are trained.

        Raises:
            ModelError: `model.device` names a device that is unavailable or not supported.
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
        """One-line warning about this placement for the user; or None."""
        if not self.emulated:
            return None
        where = "processor" if self.device.type == "cpu" else "GPU"
        return (
            f"this {where} emulates bfloat16, many times slower than float32; set model.dtype: "
            "auto to use the faster one"
        )

    def autocast_context(self) -> torch.autocast:
        """Return an autocast context for `autocast`; disabled if that is None."""
        dtype = self.autocast or torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.autocast is not None)

    def memory_available(self) -> int:
        """Return the available memory of the device, in bytes."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return this_machine().memory_available

    def reset_peak_memory(self) -> None:
        """Restart the measurement of `peak_memory`."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> int | None:
        """Return the peak memory of tensors on the GPU, in bytes; None on the CPU."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device)

    def as_json(self) -> dict[str, Any]:
        """Return plain data for the run's environment.json."""
        return {
            "device": str(self.device),
            "gpu": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None,
            "dtype": dtype_name(self.dtype),
            "autocast": self.autocast and dtype_name(self.autocast),
            "emulated": self.emulated,
            "rank": self.rank,
            "world_size": self.world_size,
        }


def use_threads(count: int | None = None) -> None:
    """Let PyTorch compute with `count` threads, which wait as suits the machine.

    Args:
        count: of threads; None: one for each core that this process may use.
    """
    torch.set_num_threads(count or this_machine().physical_cores)
    waiting.watch()


def choose_device(wanted: str) -> torch.device:
    """Return the device for `model.device` on this machine.

    Raises:
        ModelError: the device is unavailable, does not work, or is not supported.
    """
    if wanted == "auto":
        usable = _cuda_fault(0) is None and _compiles_kernels()
        return torch.device("cuda", 0) if usable else CPU
    if wanted == "mps":
        raise ModelError(
            "model.device: mps: quantised bases and fused kernels do not support MPS; use "
            "model.device: cpu"
        )
    if wanted == "cpu":
        return CPU
    index = int(wanted.partition(":")[2] or 0)
    if (fault := _cuda_fault(index)) is not None:
        raise ModelError(f"model.device: {wanted}: {fault}; use model.device: cpu")
    return torch.device("cuda", index)


def explain_device(device: torch.device) -> str:
    """Return the reason why `model.device: auto` chose `device`, for the user."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, kernels by {triton.status().reason}"
    if (fault := _cuda_fault(0)) is not None:
        return fault
    return f"no kernels for the GPU: {triton.status().reason}; model.device: cuda uses it anyway"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 matrices natively."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return this_machine().native_bfloat16


def weight_dtypes(compute: torch.dtype, *, full: bool) -> tuple[torch.dtype, torch.dtype | None]:
    """Return the dtype of the weights, and the autocast dtype or None.

    Full fine-tuning uses float32 weights: updates of 1e-4 vanish in bfloat16's 8 bits.

    Args:
        compute: dtype of the forward pass.
        full: whether all weights are trained.
    """
    if not full:
        return compute, None
    return torch.float32, None if compute == torch.float32 else compute


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name as used in recipes: `float32`, `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def _cuda_fault(index: int) -> str | None:
    """Return the reason why a CUDA GPU cannot be used; None if it can."""
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA GPU on this machine"
    count = torch.cuda.device_count()
    if index >= count:
        return f"the last CUDA GPU of this machine is cuda:{count - 1}"
    try:
        # A driver too old for PyTorch's build fails only at the first kernel.
        torch.ones(1, device=torch.device("cuda", index)).add_(1).item()
    except RuntimeError as error:
        return f"the GPU does not work: {str(error).strip().splitlines()[0]}"
    return None


def _compiles_kernels() -> bool:
    status = triton.status()
    return status.ready and not status.interpreted


def _rank_and_world() -> tuple[int, int]:
    """Return this process's rank and group size, from PyTorch or the launcher's variables."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)
