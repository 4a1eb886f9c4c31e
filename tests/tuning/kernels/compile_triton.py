"""Compile every Triton kernel for GPUs that are not here; `test_triton.py` starts this.

Each kernel is started as the engine starts it, on small tensors of the processor, but what would
run is compiled instead, with the types and the divisibility that Triton would see. Prints a line a
kernel: name, architecture, `fma` where a product and a sum of float32 were made one instruction,
dtype, bytes of shared memory.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from etude.tuning.kernels import reference
from etude.tuning.kernels.dropout import NO_DROPOUT, Dropout
from etude.tuning.kernels.triton import decode, lora, loss, norms, product, rows

TYPES = {
    torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.float64: "fp64",
    torch.uint8: "u8", torch.int64: "i64",
}  # fmt: skip
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")


def compile_instead(kernel: Any, grid: Any, *given: Any, **options: Any) -> None:
    names = kernel.arg_names
    chosen = {name: options.pop(name) for name in OPTIONS if name in options}
    chosen.setdefault("enable_fp_fusion", True)
    values = dict(zip(names, given, strict=False)) | options
    signature, constants, attributes = {}, {}, {}
    for place, name in enumerate(names):
        value = values[name]
        if name in options or (isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = "*" + TYPES[value.dtype]
            attributes[(place,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    for architecture in (80, 90):
        made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=chosen)
        assert made.asm["cubin"]
        shared = made.metadata.shared
        # What a block may have of an A100's shared memory, and of an H100's.
        assert shared <= {80: 163, 90: 227}[architecture] * 1024, (kernel, shared)
        fused = "fma" if "fma.rn.f32" in made.asm["ptx"] else "-"
        print(kernel.__name__, architecture, fused, TYPES.get(given[0].dtype), shared)


def main() -> None:
    for module in (decode, lora, loss, norms, product, rows):
        module.launch = compile_instead
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        T, H, R, N = 64, 256, 16, 512
        x, g, w = torch.randn(T, H).to(dtype), torch.randn(T, N).to(dtype), torch.ones(H).to(dtype)
        rstd = torch.ones(T)
        rows.rms_norm(x, w, 1e-5)
        rows.rms_norm_backward(x, x, w, rstd, None)
        rows.rms_norm_backward(x, x, w, rstd, x)
        angles = torch.ones(T, 64)
        for backwards in (False, True):
            rows.rotate(x, angles, angles, 4, backwards=backwards)
        rows.swiglu(x, x)
        rows.swiglu_backward(x, x, x)
        for dropout in (NO_DROPOUT, Dropout(0.1, seed=2**61 + 2**31)):
            norms.add_norm(x, x, w, w, 1e-5, dropout)
            norms.add_norm_backward(x, None, x, w, rstd, rstd, dropout)
            norms.add_norm_backward(x, x, x, w, rstd, rstd, dropout)
        norms.layer_norm(x, w, w, rstd, rstd)
        norms.gelu(x)
        norms.gelu_backward(x, x)
        for gradient in (False, True):
            targets = torch.zeros(T, dtype=torch.long)
            loss.cross_entropy(torch.randn(T, 8192).to(dtype), targets, gradient=gradient)
        A, B = torch.randn(R, H), torch.randn(N, R)
        h = lora.down(x, A)
        lora.down(g, B.T, 2.0)
        lora.up(h, B, 2.0)
        lora.across(h, x)
        W = torch.randn(N, H)
        codes, absmax = reference.quantize_4bit(W, 64, "nf4")
        coded, scales, offset = reference.quantize_absmax(absmax)
        for scale, double in ((absmax, None), (coded, (scales, offset))):
            decode.dequantize_4bit(codes, scale, (N, H), 64, "nf4", dtype, double)
            weight = codes, scale, double, (N, H), 64, "nf4"
            product.coded_product(x, weight, g[0], g, (h, B, 2.0))
            product.coded_product(x[:16], weight)
            product.coded_gradient(g, weight, x)
    decode.dequantize_absmax(coded, scales, offset)


if __name__ == "__main__":
    sys.exit(main())
