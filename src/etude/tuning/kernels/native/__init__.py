"""Kernels in C++, compiled for the processor at hand when they are first wanted.

    rows.cpp        RMS norm, rotary positions, SwiGLU, cross-entropy of a row of logits
    norms.cpp       layer norm of a sum with dropout, GELU
    attention.cpp   attention inside the segments of a packed row, causal or in both directions
    quantized.cpp   4-bit weights to numbers, 8-bit activations and integer products
    decoding.cpp    one new token: products with few rows, attention over kept keys
    dropout.h       which numbers are dropped, from a seed and their place
    checks.h        what every entry refuses: other sizes, dtypes and layouts than it needs

They need nothing but a C++ compiler: they know pointers and sizes, no header of PyTorch's, so that
all of them compile in seconds and one file serves every PyTorch. Where there is no compiler, or
`ETUDE_NATIVE=0` says so, plain PyTorch does the same work: `status()` says which, and why.
"""

from __future__ import annotations

from etude.tuning.kernels.native.build import BuildStatus, call, status

__all__ = ["BuildStatus", "call", "status"]
