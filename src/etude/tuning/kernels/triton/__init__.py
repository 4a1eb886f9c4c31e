"""Kernels in Triton, for a GPU; through its interpreter also on a processor, to be checked.

    decode.py    4-bit weights to numbers, their scales decoded on the way
    product.py   products with 4-bit weights that are decoded tile by tile and never written
    lora.py      what an adapter adds to a product, and its gradients, by way of the rank
    rows.py      RMS norm, rotary positions, SwiGLU, forward and backward
    norms.py     layer norm of a sum with dropout, GELU, forward and backward
    loss.py      cross-entropy of rows of logits, which become their gradient

Triton is imported by these modules alone, and they only once `takes` said yes. Where it is not
there, or `ETUDE_TRITON=0` says so, plain PyTorch does the same work on the GPU: `status()` says
which, and why. With `ETUDE_TRITON=interpret` and Triton's own `TRITON_INTERPRET=1` its interpreter
runs the kernels on tensors of the processor instead of the C++ ones: slow, for tests, and to be set
before Python starts.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util

import torch
from torch import Tensor

SWITCH = "ETUDE_TRITON"
"""Environment variable; 0 keeps the Triton kernels out, `interpret` runs them on the processor."""

_OLDEST = (7, 0)
"""The least compute capability that Triton makes code for."""


@dataclass(frozen=True)
class TritonStatus:
    """Whether the Triton kernels are there."""

    ready: bool
    reason: str
    """Of kernels that are not there, for people; else what compiles them."""
    interpreted: bool = False
    """Whether they run on the processor."""


@cache
def status() -> TritonStatus:
    """Return the kernels' state; does not import Triton."""
    switch = os.environ.get(SWITCH, "1")
    if switch == "0":
        return TritonStatus(False, f"{SWITCH}=0")
    if util.find_spec("triton") is None:
        return TritonStatus(False, _missing())
    name = f"Triton {_version()}"
    if switch == "interpret":
        # Triton reads its switch when it is imported, which another package may have done already.
        if os.environ.get("TRITON_INTERPRET") != "1":
            return TritonStatus(False, f"{SWITCH}=interpret needs TRITON_INTERPRET=1 beside it")
        return TritonStatus(True, f"{name}, interpreted", interpreted=True)
    if not torch.cuda.is_available():
        return TritonStatus(False, "PyTorch sees no GPU that Triton compiles for")
    if torch.version.hip is None and torch.cuda.get_device_capability() < _OLDEST:
        return TritonStatus(False, f"{name} makes no code for {torch.cuda.get_device_name()}")
    if not os.environ.get("CC") and not any(map(shutil.which, ("gcc", "clang"))):
        return TritonStatus(False, f"{name} needs a C compiler for what starts its kernels")
    return TritonStatus(True, name)


def takes(x: Tensor) -> bool:
    """Return whether a tensor's work is done by these kernels: by its device alone."""
    if x.device.type == "cuda":
        return status().ready and not status().interpreted
    return x.device.type == "cpu" and interpreting()


def interpreting() -> bool:
    """Return whether the kernels stand in for those of the processor."""
    return os.environ.get(SWITCH) == "interpret" and status().interpreted


def _missing() -> str:
    if platform.system() != "Linux":
        return f"there is no Triton for {platform.system()}"
    return "Triton is not installed (pip install 'etude[gpu]')"


def _version() -> str:
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "of an unknown version"
