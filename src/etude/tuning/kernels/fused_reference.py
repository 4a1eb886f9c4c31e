"""What `fused` computes, in plain PyTorch: the definition of each function, on any device.

Arithmetic is float32 and each result is rounded once, to the dtype of what is given. This does the
work on a GPU without Triton, and is what the kernels are checked against.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from etude.tuning.kernels.dropout import Dropout


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


def add_norm(
    y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dropout: Dropout
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn y into s = x + dropout(y), in place; return its layer norm, means and 1 / deviations."""
    wide = y.float()
    if dropout.on:
        wide = wide * dropout.factors(0, len(y), y.shape[1], y.device)
    y.copy_(wide + x.float())
    s = y.float()
    mean = s.mean(1)
    rstd = ((s - mean[:, None]).square().mean(1) + eps).rsqrt()
    return layer_norm(y, weight, bias, mean, rstd), mean, rstd


def layer_norm(s: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """Return weight ∘ (s − mean) · rstd + bias."""
    normal = (s.float() - mean[:, None]) * rstd[:, None]
    return (normal * weight.float() + bias.float()).to(s.dtype)


def add_norm_backward(
    gradient: Tensor,
    also: Tensor | None,
    s: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    dropout: Dropout,
) -> tuple[Tensor, Tensor]:
    """Return the gradients to x and y of `add_norm`; weight and bias are frozen."""
    g = gradient.float() if also is None else gradient.float() + also.float()
    wg = g * weight.float()
    normal = (s.float() - mean[:, None]) * rstd[:, None]
    common = wg.mean(1, keepdim=True) + normal * (wg * normal).mean(1, keepdim=True)
    d = (wg - common) * rstd[:, None]
    ds = d.to(s.dtype)
    if not dropout.on:
        return ds, ds
    return ds, (d * dropout.factors(0, len(s), s.shape[1], s.device)).to(s.dtype)


def gelu(g: Tensor) -> Tensor:
    """Return g Φ(g)."""
    return torch.nn.functional.gelu(g.float()).to(g.dtype)


def gelu_backward(gradient: Tensor, g: Tensor) -> Tensor:
    """Turn g into its gradient, in place; return g Φ(g) anew."""
    y, x = gelu(g), g.float()
    share = 0.5 + 0.5 * torch.erf(x * math.sqrt(0.5))
    density = (-0.5 * x * x).exp() / math.sqrt(2 * math.pi)
    g.copy_(gradient.float() * (share + x * density))
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
