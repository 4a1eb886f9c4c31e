"""What `fused` computes, in plain PyTorch: the definition of each function, on any device.

Arithmetic is float32 and each result is rounded once, to the dtype of what is given. This does the
work on a GPU without Triton, and is what the kernels are checked against.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return weight ∘ x / rms(x), (T, H), and 1 / rms(x), (T,) float32."""
    wide = x.float()
    rstd = (wide.square().mean(1) + eps).rsqrt()
    return (wide * rstd[:, None] * weight.float()).to(x.dtype), rstd


def rms_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, residual: Tensor | None
) -> Tensor:
    """Return the gradient to x, (T, H), plus `residual`; the weight is frozen."""
    wide, r = x.float(), rstd[:, None]
    wg = gradient.float() * weight.float()
    dx = r * (wg - wide * ((wg * wide).mean(1, keepdim=True) * r * r))
    return (dx if residual is None else dx + residual.float()).to(x.dtype)


def rotate(
    x: Tensor, cosine: Tensor, sine: Tensor, heads: int, *, backwards: bool = False
) -> Tensor:
    """Turn each head of x, (T, heads · width), by its row's angles, in place; return x."""
    half = x.shape[1] // heads // 2
    # A view: what is written into it is written into x.
    split = x.view(len(x), heads, 2, half)
    a, b = split[:, :, 0].float(), split[:, :, 1].float()
    c1, c2 = cosine[:, None, :half], cosine[:, None, half:]
    s1, s2 = sine[:, None, :half], sine[:, None, half:]
    if backwards:
        s1, s2 = -s2, -s1
    first, second = a * c1 - b * s1, b * c2 + a * s2  # both, before either is written over
    split[:, :, 0].copy_(first)
    split[:, :, 1].copy_(second)
    return x


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) ∘ up."""
    return (torch.nn.functional.silu(gate.float()) * up.float()).to(gate.dtype)


def swiglu_backward(gradient: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """Turn `gate` and `up` into their gradients, in place; return silu(gate) ∘ up anew."""
    y = swiglu(gate, up)
    da, g, u = gradient.float(), gate.float(), up.float()
    sigma = g.sigmoid()
    silu = torch.nn.functional.silu(g)
    gate.copy_(da * u * (sigma + silu * (1 - sigma)))
    up.copy_(da * silu)
    return y


def cross_entropy(logits: Tensor, targets: Tensor, *, gradient: bool) -> Tensor:
    """Return logsumexp − logit of the target, (N,) float32, of logits (N, V).

    With `gradient`, the logits become softmax − one-hot, in place. The largest logit is taken off
    all of them first: logsumexp of logits of 10⁴ alone is rounded by 5 · 10⁻⁴.
    """
    wide = logits.float()
    wide = wide - wide.amax(1, keepdim=True)
    log_norm = wide.logsumexp(1, keepdim=True)
    loss = (log_norm - wide.gather(1, targets[:, None])).squeeze(1)
    if gradient:
        slope = (wide - log_norm).exp_()
        slope[torch.arange(len(targets), device=targets.device), targets] -= 1
        logits.copy_(slope)
    return loss
