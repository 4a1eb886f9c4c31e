"""Compiling the C++ kernels and loading them.

The library's name is a hash of its sources, the compiler, its options and the processor's
instruction sets, so that a changed source, another compiler or a home folder shared between
machines never meets a library that is not its own. It is written whole or not at all.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from etude.core.atomic_files import replace_file
from etude.core.machine import this_machine
from etude.core.paths import home

SWITCH = "ETUDE_NATIVE"
"""Environment variable; 0 keeps the C++ kernels out."""

_SOURCES = ("rows.cpp", "norms.cpp", "attention.cpp", "quantized.cpp", "decoding.cpp")
_HEADERS = ("checks.h", "dropout.h", "vectors.h")
# -ffp-contract=fast: products and sums of one expression may be one instruction. Nothing that
# changes what NaN, infinity or the order of sums mean is allowed.
_OPTIONS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fPIC",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
)
_COMPILE_SECONDS = 120


@dataclass(frozen=True)
class BuildStatus:
    """Whether the C++ kernels are there."""

    library: ctypes.CDLL | None
    reason: str
    """Of a library that is not there, for people; else the compiler."""

    @property
    def ready(self) -> bool:
        """Whether they are."""
        return self.library is not None


@cache
def status() -> BuildStatus:
    """Return the kernels' state; compiles and loads them when it is first asked."""
    if os.environ.get(SWITCH, "1") == "0":
        return BuildStatus(None, f"{SWITCH}=0")
    compiler = _compiler()
    if compiler is None:
        return BuildStatus(None, "no C++ compiler found (install g++ or clang++, or set CXX)")
    try:
        return BuildStatus(ctypes.CDLL(str(_library(compiler))), compiler[0])
    except subprocess.TimeoutExpired:
        return BuildStatus(None, f"{compiler[0]} took over {_COMPILE_SECONDS} seconds")
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).strip().splitlines() or ["it said nothing"]
        return BuildStatus(None, f"{compiler[0]} failed: {said[0]}")
    except OSError as error:
        return BuildStatus(None, str(error))


_kernels: dict[tuple[str, torch.dtype], Callable[..., bytes | None]] = {}


def _kernel(
    name: str, dtype: torch.dtype, arguments: tuple[Tensor | float | None, ...]
) -> Callable[..., bytes | None]:
    """Return a kernel, its types taken from the first arguments that it is called with."""
    library = status().library
    if library is None:
        raise RuntimeError(f"the C++ kernels are not there: {status().reason}")
    suffix = {torch.bfloat16: "bf16", torch.float32: "float"}.get(dtype)
    if suffix is None:
        raise ValueError(f"{name}: there is no C++ kernel for {dtype}")
    types: list[Any] = []
    for value in arguments:
        # An array, or none, is its address and what lies there; see checks.h.
        types += _C_TYPES.get(type(value), (ctypes.c_void_p, ctypes.c_int64))
    kernel = ctypes.CFUNCTYPE(ctypes.c_char_p, *types)((f"{name}_{suffix}", library))
    _kernels[name, dtype] = kernel
    return kernel


_C_TYPES: dict[type, tuple[Any, ...]] = {
    int: (ctypes.c_int64,),
    bool: (ctypes.c_int64,),
    float: (ctypes.c_float,),
}

_ARRAY_TYPES = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.int64: 2,
    torch.int32: 3,
    torch.uint8: 4,
    torch.int8: 5,
}
"""As checks.h numbers them."""

_UNKNOWN_TYPE = 7


def call(name: str, dtype: torch.dtype, *arguments: Tensor | float | None) -> None:
    """Call a kernel for numbers of `dtype`, bfloat16 or float32.

    The first argument is a tensor. Tensors go by address, with their size and dtype beside it,
    which the kernel checks before it touches anything; whole numbers go as 64 bits, floats as 32.
    `status().ready` is a must. Tensors without numbers, with which memory is planned, have no
    address: nothing is done then.

    Raises:
        ValueError: a tensor has another size, dtype or layout than the kernel needs, or lies on
            another device than the processor.
    """
    if isinstance(arguments[0], FakeTensor):
        return
    values: list[Any] = []
    add = values.append
    # A token that is generated comes here some hundred times: what is usual is looked at first.
    for value in arguments:
        if isinstance(value, Tensor):
            add(value.data_ptr())
            if value.is_contiguous() and value.is_cpu:
                add(value.numel() << 4 | _ARRAY_TYPES.get(value.dtype, _UNKNOWN_TYPE))
            else:
                add(_strided(name, value))
        else:
            add(value)
            if value is None:
                add(-1)
    kernel = _kernels.get((name, dtype)) or _kernel(name, dtype, arguments)
    refused = kernel(*values)
    if refused is not None:
        raise ValueError(f"{name}: {refused.decode()}")


def _strided(name: str, tensor: Tensor) -> int:
    """Return what lies at the address of a tensor with gaps between its rows; see checks.h."""
    if not tensor.is_cpu:
        raise ValueError(f"{name}: a tensor lies on {tensor.device}, not on the processor")
    rows, width = tensor.shape if tensor.dim() == 2 else (0, 0)
    step, inner = tensor.stride() if tensor.dim() == 2 else (0, 0)
    if rows == 0 or (inner != 1 and width != 1):
        raise ValueError(f"{name}: a tensor's rows are not contiguous")
    return ((rows - 1) * step + width) << 4 | 8 | _ARRAY_TYPES.get(tensor.dtype, _UNKNOWN_TYPE)


def _compiler() -> list[str] | None:
    chosen = os.environ.get("CXX")
    if chosen:
        command = shlex.split(chosen)
        return command if shutil.which(command[0]) else None
    found = next((name for name in ("g++", "clang++", "c++") if shutil.which(name)), None)
    return [found] if found else None


def _library(compiler: list[str]) -> Path:
    """Return the library's file, made if it is not there."""
    here = Path(__file__).parent
    version = _run([*compiler, "--version"])
    digest = hashlib.sha256("\0".join([*compiler, version, *_OPTIONS]).encode())
    machine = this_machine()
    digest.update("\0".join([machine.processor, *machine.instruction_sets]).encode())
    for name in (*_SOURCES, *_HEADERS):
        digest.update((here / name).read_bytes())
    target = home() / "native" / f"kernels-{digest.hexdigest()[:16]}.so"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="making-") as folder:
        # Linked without the compiler's own OpenMP: the loader finds PyTorch's, so that the two
        # share one pool of threads instead of waiting for each other's.
        objects = [Path(folder) / f"{Path(name).stem}.o" for name in _SOURCES]
        threads = "-fopenmp"
        for source, made_object in zip(_SOURCES, objects, strict=True):
            command = [*compiler, *_OPTIONS, threads, "-c", str(here / source)]
            _run([*command, "-o", str(made_object)])
        link = [*compiler, "-shared", *map(str, objects), "-o"]
        replace_file(target, lambda aside: _run([*link, str(aside)]))
    return target


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=_COMPILE_SECONDS
    )
    return done.stdout
