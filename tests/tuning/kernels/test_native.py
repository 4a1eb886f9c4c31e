"""The C++ kernels against float64, and against the plain PyTorch that they stand in for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from etude.tuning.kernels import cpu, fused, fused_reference, int8_matmul, native, reference
from etude.tuning.kernels.codebooks import CODEBOOKS
from etude.tuning.kernels.heads import Heads

BF16, FLOAT = torch.bfloat16, torch.float32
WIDTHS = (16, 17, 48, 100)

needs_kernels = pytest.mark.skipif(
    not native.status().ready, reason=f"no C++ kernels here: {native.status().reason}"
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    """Return the relative error, by norm."""
    return float((found.double() - true.detach()).norm() / true.detach().double().norm())


# float32: some tens of operations of 2^-24 each. bfloat16: arithmetic is float32, so that rounding
# the result is what is seen: 2^-8 of each number at most, and so of the norm.
# `TWICE` is for what the model's own code rounds once more on the way (silu, the normalised row).
TOLERANCE = {FLOAT: 1e-6, BF16: 2**-8}
TWICE = {FLOAT: 1e-6, BF16: 2**-7}


def test_ci_has_the_kernels():
    """Where a compiler is on the path, they are built: all tests below would pass by skipping."""
    if os.environ.get("CI"):
        assert native.status().ready, native.status().reason


@needs_kernels
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("width", WIDTHS)
def test_rms_norm_and_its_gradient(dtype, width):
    x, weight = torch.randn(7, width).to(dtype), (1 + torch.rand(width)).to(dtype)
    gradient, residual = torch.randn(7, width).to(dtype), torch.randn(7, width).to(dtype)
    y, rstd = fused.rms_norm(x, weight, 1e-5)
    wide = x.double().requires_grad_()
    true = weight.double() * wide * (wide.square().mean(1, keepdim=True) + 1e-5).rsqrt()
    true.backward(gradient.double())
    assert error(y, true) < TWICE[dtype]
    dx = fused.rms_norm_backward(gradient, x, weight, rstd, None)
    assert error(dx, wide.grad) < TOLERANCE[dtype]
    both = fused.rms_norm_backward(gradient, x, weight, rstd, residual)
    assert error(both, wide.grad + residual.double()) < TOLERANCE[dtype]


@needs_kernels
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("width", [16, 48, 80])
def test_rotation_is_that_of_llama_and_turns_back(dtype, width):
    heads, rows = 3, 5
    x = torch.randn(rows, heads * width).to(dtype)
    angle = torch.randn(rows, width)
    cosine, sine = angle.cos(), angle.sin()
    wide = x.double().view(rows, heads, width).requires_grad_()
    turned = torch.cat([-wide[..., width // 2 :], wide[..., : width // 2]], -1)
    true = wide * cosine[:, None].double() + turned * sine[:, None].double()
    assert error(fused.rotate(x.clone(), cosine, sine, heads), true.flatten(1)) < TOLERANCE[dtype]
    gradient = torch.randn(rows, heads * width).to(dtype)
    true.backward(gradient.double().view_as(true))
    back = fused.rotate(gradient.clone(), cosine, sine, heads, backwards=True)
    assert error(back, wide.grad.flatten(1)) < TOLERANCE[dtype]


@needs_kernels
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("count", [1, 15, 16, 333])
def test_swiglu_and_its_gradients(dtype, count):
    gate, up = (4 * torch.randn(1, count)).to(dtype), torch.randn(1, count).to(dtype)
    gradient = torch.randn(1, count).to(dtype)
    g, u = gate.double().requires_grad_(), up.double().requires_grad_()
    true = F.silu(g) * u
    true.backward(gradient.double())
    assert error(fused.swiglu(gate, up), true) < TWICE[dtype]
    dg, du = gate.clone(), up.clone()
    again = fused.swiglu_backward(gradient, dg, du)
    assert torch.equal(again, fused.swiglu(gate, up))
    assert error(dg, g.grad) < TOLERANCE[dtype]
    assert error(du, u.grad) < TOLERANCE[dtype]


@needs_kernels
def test_swiglu_far_from_zero_neither_overflows_nor_invents():
    gate = torch.tensor([[-1e30, -200.0, -88.0, -20.0, 0.0, 20.0, 88.0, 200.0, 1e30]])
    found = fused.swiglu(gate, torch.ones_like(gate))
    torch.testing.assert_close(found, F.silu(gate.double()).float(), rtol=1e-6, atol=1e-30)
    assert fused.swiglu(torch.full((1, 1), float("nan")), torch.ones(1, 1)).isnan().all()


@needs_kernels
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("width", [3, 16, 97, 1000])
def test_cross_entropy_and_its_gradient_in_place(dtype, width):
    logits = (5 * torch.randn(6, width)).to(dtype)
    targets = torch.randint(0, width, (6,))
    wide = logits.double().requires_grad_()
    true = F.cross_entropy(wide, targets, reduction="none")
    true.sum().backward()
    copy = logits.clone()
    # The loss is a difference of float32 numbers of about 10: 1e-6 absolute, whatever the dtype.
    torch.testing.assert_close(
        fused.cross_entropy(copy, targets, gradient=False).double(), true, rtol=1e-6, atol=3e-6
    )
    assert torch.equal(copy, logits)
    fused.cross_entropy(copy, targets, gradient=True)
    assert error(copy, wide.grad) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    "by",
    [pytest.param(fused.cross_entropy, marks=needs_kernels), fused_reference.cross_entropy],
    ids=["compiled", "reference"],
)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_cross_entropy_of_large_logits_keeps_the_digits_of_a_small_loss(by, size):
    logits = size + 3 * torch.randn(50, 97)
    targets = logits.argmax(1)
    wide = logits.double().requires_grad_()
    true = F.cross_entropy(wide, targets, reduction="none")
    true.sum().backward()
    # float32 logits of 10⁴ are 10⁻³ apart; their differences, and so the loss, are exact to 10⁻⁶.
    torch.testing.assert_close(
        by(logits, targets, gradient=False).double(), true, rtol=1e-6, atol=1e-6
    )
    by(logits, targets, gradient=True)
    assert error(logits, wide.grad) < TOLERANCE[FLOAT]


@needs_kernels
def test_cross_entropy_of_a_logit_that_is_not_finite_is_not_finite():
    for bad in (float("nan"), float("inf")):
        logits = torch.zeros(1, 40)
        logits[0, 7] = bad
        assert not fused.cross_entropy(logits, torch.tensor([3]), gradient=False).isfinite().any()


def attended(q, k, v, lengths, heads: Heads):
    """Attend in float64 by PyTorch, segment by segment; return the output and its leaves."""
    leaves = [t.detach().double().requires_grad_() for t in (q, k, v)]
    outputs, start = [], 0
    for n in lengths:
        parts = [t[start : start + n].view(n, -1, heads.width).transpose(0, 1) for t in leaves]
        behind = torch.arange(n)[:, None] - torch.arange(n)
        mask = (behind >= 0) & (behind < (heads.window or n)) if heads.causal else None
        out = F.scaled_dot_product_attention(
            *parts, attn_mask=mask, scale=heads.scale, enable_gqa=True
        )
        outputs.append(out.transpose(0, 1).reshape(n, -1))
        start += n
    return torch.cat(outputs), leaves


CASES = {
    "grouped": (Heads(9, 3, 64, 0.125), [70, 1, 37, 64, 2]),
    "one long": (Heads(2, 1, 32, 0.2), [700]),
    "own keys": (Heads(3, 3, 128, 0.1), [129, 63]),
    "odd width": (Heads(2, 1, 80, 0.1), [33, 5]),
    "narrow": (Heads(4, 2, 16, 0.25), [7, 97]),
    "narrower": (Heads(3, 1, 8, 0.3), [5, 70]),
    "width of half tiles": (Heads(4, 2, 24, 0.2), [33, 1, 66]),
    "window": (Heads(4, 1, 48, 0.1, window=17), [100, 16, 17, 18]),
    "window of one": (Heads(2, 2, 16, 0.25, window=1), [70]),
    "window over blocks": (Heads(2, 1, 64, 0.125, window=150), [900]),
    "both directions": (Heads(12, 12, 32, 0.177, causal=False), [25, 1, 64, 13, 2, 130]),
    "both directions, grouped": (Heads(4, 2, 24, 0.2, causal=False), [33, 65]),
    "both directions, long": (Heads(1, 1, 64, 0.125, causal=False), [900]),
}


@needs_kernels
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("case", CASES)
def test_attention_and_its_gradients(dtype, case):
    heads, lengths = CASES[case]
    count = sum(lengths)
    q, g = (torch.randn(count, heads.query * heads.width).to(dtype) for _ in range(2))
    k, v = (torch.randn(count, heads.key * heads.width).to(dtype) for _ in range(2))
    true, leaves = attended(q, k, v, lengths, heads)
    true.backward(g.double())
    out, log_norm = fused.attention(q, k, v, lengths, heads)
    # bfloat16: scores' weights are rounded before they are multiplied, as on any hardware that
    # multiplies bfloat16; that is an error of its own, of the size of the result's rounding.
    tolerance = {FLOAT: 1.5e-6, BF16: 4e-3}[dtype]
    assert error(out, true) < tolerance
    gradients = fused.attention_backward(g, q, k, v, out, log_norm, lengths, heads)
    for found, leaf in zip(gradients, leaves, strict=True):
        assert found.dtype == dtype
        if leaf.grad.norm() > 0:
            assert error(found, leaf.grad) < tolerance
        else:  # a query that sees one key has no gradient
            assert found.abs().max() < 1e-2 * g.abs().max()


@needs_kernels
def test_attention_reads_and_writes_rows_that_lie_apart():
    heads, lengths = Heads(4, 2, 16, 0.25), [19, 30]
    rows = torch.randn(49, 8 * 16)
    q, k, v = rows.split([64, 32, 32], 1)
    apart, together = (
        fused.attention(*parts, lengths, heads)
        for parts in ((q, k, v), [t.contiguous() for t in (q, k, v)])
    )
    assert torch.equal(apart[0], together[0])
    g = torch.randn(49, 64)
    one = fused.attention_backward(g, q, k, v, *apart, lengths, heads)
    other = fused.attention_backward(
        g, q.contiguous(), k.contiguous(), v.contiguous(), *together, lengths, heads
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@needs_kernels
def test_attention_does_not_depend_on_the_number_of_threads():
    heads, lengths = Heads(3, 1, 32, 0.2), [40, 90, 11]
    q, k, v, g = (torch.randn(141, n).bfloat16() for n in (96, 32, 32, 96))
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out, log_norm = fused.attention(q, k, v, lengths, heads)
        found.append((out, *fused.attention_backward(g, q, k, v, out, log_norm, lengths, heads)))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for one in found[1:] for a, b in zip(found[0], one, strict=True))


@needs_kernels
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
def test_no_result_depends_on_which_thread_took_which_chunk(dtype):
    """More threads than cores take the chunks in another order each time; no sum crosses one."""
    x, g = torch.randn(2, 300, 576).to(dtype)
    weight, logits = torch.randn(576).to(dtype), torch.randn(40, 3000).to(dtype)
    angle, targets = torch.randn(300, 64), torch.randint(3000, (40,))
    thin, thick = torch.randn(8, 576).to(dtype), torch.randn(2000, 576).to(dtype)
    cache = torch.randn(2, 8, 3, 90, 64).to(dtype)

    def everything() -> list[torch.Tensor]:
        y, rstd = fused.rms_norm(x, weight, 1e-5)
        turned, changed, gate, up = x.clone(), logits.clone(), x.clone(), g.clone()
        fused.rotate(turned, angle.cos(), angle.sin(), 9)
        loss = fused.cross_entropy(changed, targets, gradient=True)
        seen, places = torch.full((8,), 90), torch.arange(8)
        return [
            y,
            fused.rms_norm_backward(g, x, weight, rstd, g),
            turned,
            loss,
            changed,
            fused.swiglu(x, g),
            fused.swiglu_backward(g, gate, up),
            gate,
            up,
            fused.thin_product(thin, thick),
            fused.cached_attention(thin, *cache, places, seen, Heads(9, 3, 64, 0.125)),
        ]

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = everything()
    try:
        for threads in (2, 3, 8):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(alone, everything(), strict=True))
    finally:
        torch.set_num_threads(before)


@needs_kernels
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize(("width", "columns"), [(16, 1), (48, 33), (100, 70), (576, 192)])
def test_a_product_of_few_rows_with_all_that_is_added_to_it(dtype, width, columns):
    weight, b = torch.randn(columns, width).to(dtype), torch.randn(5, columns).to(dtype)
    bias = torch.randn(columns).to(dtype)
    for rows in (1, 2, 3, 8, 15):
        x, h = (torch.randn(rows, n).to(dtype) for n in (width, 5))
        add = torch.randn(rows, columns).to(dtype)
        true = x.double() @ weight.double().T
        assert error(fused.thin_product(x, weight), true) < TOLERANCE[dtype]
        true = true + bias.double() + add.double() + h.double() @ b.double()
        assert error(fused.thin_product(x, weight, bias, add, (h, b)), true) < TOLERANCE[dtype]


@needs_kernels
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("window", [None, 17])
def test_a_new_token_attends_to_the_keys_that_are_kept(dtype, window):
    heads = Heads(6, 2, 48, 0.15, window=window)
    places, counts = torch.tensor([2, 0, 3]), torch.tensor([1, 90, 33])
    q = torch.randn(3, 6 * 48).to(dtype)
    keys, values = (torch.randn(4, 2, 96, 48).to(dtype) for _ in range(2))
    rows = []
    for row, place, count in zip(q, places, counts, strict=True):
        seen = slice(max(0, int(count) - (window or 96)), int(count))
        parts = [kept[place, :, seen].double() for kept in (keys, values)]
        one = F.scaled_dot_product_attention(
            row.double().view(6, 1, 48), *parts, scale=heads.scale, enable_gqa=True
        )
        rows.append(one.flatten())
    found = fused.cached_attention(q, keys, values, places, counts, heads)
    assert error(found, torch.stack(rows)) < TOLERANCE[dtype]


@needs_kernels
@given(
    count=st.integers(1, 700),
    block=st.sampled_from([32, 64, 256]),
    kind=st.sampled_from(sorted(CODEBOOKS)),
    dtype=st.sampled_from([FLOAT, BF16]),
    size=st.sampled_from([1.0, 1e-39, 1e30]),
)
def test_4_bit_codes_decode_to_the_bits_of_the_reference(count, block, kind, dtype, size):
    x = torch.randn(count) * size
    codes, absmax = cpu.quantize_4bit(x, block, kind)
    found = cpu.dequantize_4bit(codes, absmax, (count,), block, kind, dtype)
    true = reference.dequantize_4bit(codes, absmax, (count,), block, kind, dtype)
    bits = {FLOAT: torch.int32, BF16: torch.int16}[dtype]
    assert torch.equal(found.view(bits), true.view(bits))


@needs_kernels
@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("width", WIDTHS)
def test_integer_rows_are_those_of_plain_pytorch(dtype, width, monkeypatch):
    x = torch.randn(9, width).to(dtype)
    x[3] = 0
    columns = torch.rand(width)
    sums = torch.randint(-(10**6), 10**6, (9, width), dtype=torch.int32)
    rows, add = torch.rand(9), torch.randn(9, width).to(dtype)

    def everything():
        return (
            *int8_matmul.int8_rows(x),
            *int8_matmul.int8_rows(x, columns),
            int8_matmul.column_peaks(x),
            int8_matmul.int32_scaled(sums, rows, columns, dtype),
            int8_matmul.int32_scaled(sums, rows, None, dtype, add),
        )

    fast = everything()
    monkeypatch.setattr(int8_matmul, "has_kernels", lambda _: False)
    for one, other in zip(fast, everything(), strict=True):
        assert one.dtype == other.dtype
        if one.dtype == torch.int8:  # a product and its rounding may end on either side of a tie
            assert (one.int() - other.int()).abs().max() <= 1
        else:
            torch.testing.assert_close(one, other, rtol=2**-8 if dtype == BF16 else 1e-6, atol=1e-6)


def test_without_a_compiler_plain_pytorch_does_the_work_and_says_why(tmp_path):
    code = (
        "import torch; from etude.tuning.kernels import native, fused, int8_matmul, cpu;"
        "assert not native.status().ready; print(native.status().reason);"
        "assert not fused.has_kernels(torch.ones(1));"
        "print(int8_matmul.column_peaks(torch.ones(2, 3)).tolist());"
        "c, a = cpu.quantize_4bit(torch.ones(64), 64, 'nf4');"
        "print(cpu.dequantize_4bit(c, a, (64,), 64, 'nf4', torch.float32).sum().item())"
    )
    empty = {**os.environ, "ETUDE_HOME": str(tmp_path), "PATH": str(tmp_path)}
    empty.pop("CXX", None)
    for surroundings, reason in (
        (empty, "no C++ compiler found"),
        ({**empty, "CXX": f"{sys.executable} -c raise(SystemExit(3))"}, "failed"),
        ({**os.environ, "ETUDE_NATIVE": "0"}, "ETUDE_NATIVE=0"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=surroundings,
            capture_output=True,
            text=True,
            check=True,
        )
        said, peaks, total = done.stdout.splitlines()
        assert reason in said
        assert (peaks, total) == ("[1.0, 1.0, 1.0]", "64.0")


@needs_kernels
def test_a_library_is_made_once_and_a_torn_one_never_loaded(tmp_path):
    code = "from etude.tuning.kernels import native; s = native.status(); assert s.ready, s.reason"
    surroundings = {**os.environ, "ETUDE_HOME": str(tmp_path)}
    folder = tmp_path / "native"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], env=surroundings, check=True)
        (library,) = folder.iterdir()  # nothing half made lies beside it
        stamp = library.stat().st_mtime_ns
    subprocess.run([sys.executable, "-c", code], env=surroundings, check=True)
    assert library.stat().st_mtime_ns == stamp


def ones(*shape, dtype=FLOAT):
    return torch.ones(*shape, dtype=dtype)


HEADS = Heads(4, 2, 16, 0.25)
PLACES, COUNTS = torch.tensor([0, 1]), torch.tensor([3, 1])
KEPT = ones(2, 2, 5, 16)


def backward(**changes):
    given = {
        "gradient": ones(6, 64), "q": ones(6, 64), "k": ones(6, 32), "v": ones(6, 32),
        "out": ones(6, 64), "log_norm": ones(4, 6), "lengths": [6], "heads": HEADS,
    }  # fmt: skip
    return fused.attention_backward(**{**given, **changes})


def decode(codes, absmax, dtype=FLOAT):
    return cpu.dequantize_4bit(codes, absmax, (64,), 32, "nf4", dtype)


BYTES = torch.zeros(32, dtype=torch.uint8)
SUMS = torch.ones(3, 8, dtype=torch.int32)

REFUSED = {
    "a norm's weight is shorter": lambda: fused.rms_norm(ones(3, 20), ones(16), 1e-5),
    "a norm's weight has another dtype": lambda: fused.rms_norm(
        ones(3, 20, dtype=BF16), ones(20), 1e-5
    ),
    "a norm's rows lie apart": lambda: fused.rms_norm(ones(3, 40)[:, :20], ones(20), 1e-5),
    "a norm's numbers are float64": lambda: fused.rms_norm(
        ones(3, 20).double(), ones(20).double(), 1e-5
    ),
    "a norm's gradient has fewer rows": lambda: fused.rms_norm_backward(
        ones(2, 20), ones(3, 20), ones(20), ones(3), None
    ),
    "a norm's residual is wider": lambda: fused.rms_norm_backward(
        ones(3, 20), ones(3, 20), ones(20), ones(3), ones(3, 21)
    ),
    "angles of too few rows": lambda: fused.rotate(ones(3, 32), ones(2, 16), ones(3, 16), 2),
    "angles of half the width": lambda: fused.rotate(ones(3, 32), ones(3, 8), ones(3, 8), 2),
    "angles in bfloat16": lambda: fused.rotate(
        ones(3, 32), ones(3, 16, dtype=BF16), ones(3, 16, dtype=BF16), 2
    ),
    "heads of an odd width": lambda: fused.rotate(ones(3, 9), ones(3, 3), ones(3, 3), 3),
    "columns that are rows": lambda: fused.rotate(ones(32, 3).T, ones(3, 16), ones(3, 16), 2),
    "up is shorter than gate": lambda: fused.swiglu(ones(3, 8), ones(3, 7)),
    "the gradient is shorter than gate": lambda: fused.swiglu_backward(
        ones(3, 7), ones(3, 8), ones(3, 8)
    ),
    "a target beyond the logits": lambda: fused.cross_entropy(
        ones(2, 8), torch.tensor([1, 8]), gradient=True
    ),
    "a target that is ignored": lambda: fused.cross_entropy(
        ones(2, 8), torch.tensor([1, -100]), gradient=True
    ),
    "fewer targets than rows": lambda: fused.cross_entropy(
        ones(2, 8), torch.tensor([1]), gradient=False
    ),
    "targets in 32 bits": lambda: fused.cross_entropy(
        ones(2, 8), torch.tensor([1, 2], dtype=torch.int32), gradient=False
    ),
    "a width without kernel": lambda: fused.attention(
        ones(6, 28), ones(6, 14), ones(6, 14), [6], Heads(4, 2, 7, 0.25)
    ),
    "keys of other heads": lambda: fused.attention(
        ones(6, 64), ones(6, 16), ones(6, 32), [6], HEADS
    ),
    "values of fewer rows": lambda: fused.attention(
        ones(6, 64), ones(6, 32), ones(5, 32), [6], HEADS
    ),
    "segments longer than the rows": lambda: fused.attention(
        ones(6, 64), ones(6, 32), ones(6, 32), [4, 3], HEADS
    ),
    "a segment of negative length": lambda: fused.attention(
        ones(6, 64), ones(6, 32), ones(6, 32), [8, -2], HEADS
    ),
    "heads that do not divide": lambda: fused.attention(
        ones(6, 64), ones(6, 48), ones(6, 48), [6], Heads(4, 3, 16, 0.25)
    ),
    "backwards: a gradient of another layout": lambda: backward(gradient=ones(6, 128)[:, :64]),
    "backwards: fewer norms": lambda: backward(log_norm=ones(4, 5)),
    "backwards: keys in bfloat16": lambda: backward(k=ones(6, 32, dtype=BF16)),
    "backwards: segments shorter than the rows": lambda: backward(lengths=[3]),
    "a product's weight is narrower": lambda: fused.thin_product(ones(2, 16), ones(8, 15)),
    "a product's weight lies across": lambda: fused.thin_product(ones(2, 16), ones(16, 8).T),
    "a product's weight has another dtype": lambda: fused.thin_product(
        ones(2, 16, dtype=BF16), ones(8, 16)
    ),
    "a product's bias is shorter": lambda: fused.thin_product(ones(2, 16), ones(8, 16), ones(7)),
    "a sum of another shape": lambda: fused.thin_product(
        ones(2, 16), ones(8, 16), None, ones(1, 8)
    ),
    "an adapter of another rank": lambda: fused.thin_product(
        ones(2, 16), ones(8, 16), None, None, (ones(2, 4), ones(3, 8))
    ),
    "an answer that is not kept": lambda: fused.cached_attention(
        ones(2, 64), KEPT, KEPT, PLACES + 1, COUNTS, HEADS
    ),
    "more keys than are kept": lambda: fused.cached_attention(
        ones(2, 64), KEPT, KEPT, PLACES, COUNTS + 3, HEADS
    ),
    "an answer without keys": lambda: fused.cached_attention(
        ones(2, 64), KEPT, KEPT, PLACES, COUNTS - 1, HEADS
    ),
    "kept heads of another width": lambda: fused.cached_attention(
        ones(2, 64), ones(2, 2, 5, 8), KEPT, PLACES, COUNTS, HEADS
    ),
    "too few codes": lambda: decode(BYTES[:31], ones(2)),
    "too few scales": lambda: decode(BYTES, ones(1)),
    "scales in bfloat16": lambda: decode(BYTES, ones(2, dtype=BF16)),
    "factors of fewer columns": lambda: int8_matmul.int8_rows(ones(3, 8), ones(7)),
    "rounded columns that are rows": lambda: int8_matmul.int8_rows(ones(8, 3).T),
    "peaks of columns that are rows": lambda: int8_matmul.column_peaks(ones(8, 3).T),
    "fewer row scales": lambda: int8_matmul.int32_scaled(SUMS, ones(2), None, FLOAT),
    "sums in 64 bits": lambda: int8_matmul.int32_scaled(SUMS.long(), ones(3), None, FLOAT),
    "a sum to add of another dtype": lambda: int8_matmul.int32_scaled(
        SUMS, ones(3), None, FLOAT, ones(3, 8, dtype=BF16)
    ),
}


@needs_kernels
@pytest.mark.parametrize("name", REFUSED)
def test_a_kernel_refuses_what_it_would_read_or_write_beyond(name):
    with pytest.raises(ValueError, match=r"^\w+: "):
        REFUSED[name]()
