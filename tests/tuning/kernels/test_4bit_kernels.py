"""Fast path, reference and bitsandbytes give the same bytes."""

from __future__ import annotations

import subprocess
import sys

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import ModelError
from etude.tuning.kernels import cpu, ops, reference
from etude.tuning.kernels.codebooks import CODEBOOKS, DYNAMIC_LEVELS

BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FORMATS = ("nf4", "fp4")
"""Those that bitsandbytes has too."""
WEIGHTS = ("normal", "heavy", "zero", "constant", "one spike", "subnormal", "tiny", "huge")


def weights(of: str, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, generator=generator)
    spike = torch.zeros(count)
    spike[count // 2] = -3.0
    return {
        "normal": normal * 0.02,
        "heavy": normal * 10 ** (torch.randn(count, generator=generator) * 3),
        "zero": torch.zeros(count),
        "constant": torch.full((count,), -0.37),
        "one spike": spike,
        "subnormal": normal * 1e-40,
        "tiny": normal * 1e-38,
        "huge": torch.tanh(normal) * 3.4e38,
    }[of]


def assert_same(left: torch.Tensor, right: torch.Tensor) -> None:
    """Equal bits, a negative zero included."""
    assert left.dtype == right.dtype
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[left.element_size()]
    left, right = left.contiguous().view(kind), right.contiguous().view(kind)
    assert left.shape == right.shape
    assert torch.equal(left, right), f"{int((left != right).sum())} of {left.numel()} differ"


def test_the_tables_are_those_of_bitsandbytes():
    for kind in FORMATS:
        assert_same(CODEBOOKS[kind].levels, bnb.get_4bit_type(kind, "cpu"))
    assert_same(DYNAMIC_LEVELS, bnb.create_dynamic_map())


@given(
    count=st.integers(1, 9000),
    block=st.sampled_from(BLOCKS),
    dtype=st.sampled_from(DTYPES),
    of=st.sampled_from(WEIGHTS),
    kind=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**16),
)
def test_codes_and_scales_are_the_same_bytes_in_all_three(count, block, dtype, of, kind, seed):
    x = weights(of, count, seed).clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    panel = cpu.PANEL
    try:
        cpu.PANEL = 4096  # so that a few thousand weights cross panels
        codes, absmax = ops.quantize_4bit(x, block, kind)
    finally:
        cpu.PANEL = panel
    defined = reference.quantize_4bit(x, block, kind)
    theirs, state = bnb.quantize_4bit(x, blocksize=block, quant_type=kind)
    assert_same(codes, defined[0])
    assert_same(absmax, defined[1])
    assert_same(codes, theirs.view(-1))
    assert_same(absmax, state.absmax)


@given(
    count=st.integers(1, 9000),
    block=st.sampled_from(BLOCKS),
    dtype=st.sampled_from(DTYPES),
    of=st.sampled_from(WEIGHTS),
    kind=st.sampled_from(FORMATS),
    seed=st.integers(0, 2**16),
)
def test_decoded_weights_are_the_same_bits_in_all_three(count, block, dtype, of, kind, seed):
    codes, absmax = ops.quantize_4bit(weights(of, count, seed), block, kind)
    panel = cpu.PANEL
    try:
        cpu.PANEL = 4096
        decoded = ops.dequantize_4bit(codes, absmax, (count,), block, kind, dtype)
    finally:
        cpu.PANEL = panel
    assert_same(decoded, reference.dequantize_4bit(codes, absmax, (count,), block, kind, dtype))
    state = bnb.QuantState(absmax, (count,), CODEBOOKS[kind].levels, block, kind, dtype)
    theirs = bnb.dequantize_4bit(codes[:, None], state).view(-1)
    # The processor's bfloat16 conversion, which bitsandbytes uses on some lengths, makes zeros of
    # subnormal numbers.
    flushed = (decoded.abs() < torch.finfo(dtype).tiny) & (theirs == 0)
    decoded = torch.where(flushed, decoded * 0, decoded)
    if kind == "fp4":
        # Code 8 is +0.0 in bitsandbytes' table and -0.0 in its native code for ragged lengths.
        decoded, theirs = decoded + 0.0, theirs + 0.0
    assert_same(decoded, theirs)


@pytest.mark.parametrize("shape", [(7, 33), (3, 5, 31), (64, 192), (130, 100), (1, 1)])
def test_blocks_run_on_over_the_ends_of_rows(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    codes, absmax = ops.quantize_4bit(x, 64, "nf4")
    flat = ops.quantize_4bit(x.reshape(-1), 64, "nf4")
    assert_same(codes, flat[0])
    assert_same(absmax, flat[1])
    decoded = ops.dequantize_4bit(codes, absmax, shape, 64, "nf4", torch.float32)
    assert decoded.shape == shape
    assert_same(decoded, reference.dequantize_4bit(codes, absmax, shape, 64, "nf4", torch.float32))
    if shape[-1] % 2 or shape[-1] % 64 == 0:
        # For even rows that are no whole blocks, bitsandbytes 0.50.2 decodes with the wrong scales
        # where there is AVX-512: twice the error that its own portable code makes.
        state = bnb.QuantState(absmax, shape, CODEBOOKS["nf4"].levels, 64, "nf4", torch.float32)
        assert_same(decoded, bnb.dequantize_4bit(codes[:, None], state).view(shape))


def test_whole_panels_of_real_size_agree_with_the_reference():
    x = weights("normal", cpu.PANEL * 2 + 4097).bfloat16()
    codes, absmax = ops.quantize_4bit(x, 4096, "nf4")
    defined = reference.quantize_4bit(x, 4096, "nf4")
    assert_same(codes, defined[0])
    assert_same(absmax, defined[1])
    decoded = ops.dequantize_4bit(codes, absmax, x.shape, 4096, "nf4", torch.bfloat16)
    assert_same(decoded, reference.dequantize_4bit(*defined, x.shape, 4096, "nf4", torch.bfloat16))


def neighbours(values: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the values and `steps` floats on either side of each."""
    below, above, found = values, values, [values]
    for _ in range(steps):
        below = torch.nextafter(below, torch.tensor(-2.0))
        above = torch.nextafter(above, torch.tensor(2.0))
        found += [below, above]
    return torch.cat(found)


@pytest.mark.parametrize("kind", FORMATS)
def test_values_on_and_beside_every_midpoint_take_bitsandbytes_side(kind):
    near = neighbours(CODEBOOKS[kind].midpoints, 200)
    near = torch.cat([near, near.new_zeros(-len(near) % 63)]).view(-1, 63)
    x = torch.cat(
        [torch.ones(len(near), 1), near], dim=1
    )  # absmax 1: values reach the tables as they are
    codes, _ = ops.quantize_4bit(x, 64, kind)
    theirs, _ = bnb.quantize_4bit(x, blocksize=64, quant_type=kind)
    assert_same(codes, theirs.view(-1))
    book = CODEBOOKS[kind]
    on_midpoint = ops.quantize_4bit(torch.cat([torch.ones(1), book.midpoints]), 64, kind)[0]
    nibbles = torch.stack([on_midpoint >> 4, on_midpoint & 15], 1).view(-1)
    assert nibbles.tolist() == [book.order[15], *book.order[:15]]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [64, 61])
def test_weights_that_scaling_puts_near_a_midpoint_take_bitsandbytes_side(count, kind):
    # Whole blocks are multiplied by the reciprocal of their scale, a shorter last one is divided
    # by it: the two roundings differ for weights a few units from midpoint times scale.
    generator = torch.Generator().manual_seed(0)
    near = neighbours(CODEBOOKS[kind].midpoints, 3)
    order = torch.tensor(CODEBOOKS[kind].order)
    differ = 0
    for scale in torch.rand(200, generator=generator) + 0.01:
        pick = near[torch.randperm(len(near), generator=generator)[: count - 1]]
        x = torch.cat([scale[None], pick * scale])
        codes, _ = ops.quantize_4bit(x, 64, kind)
        theirs, _ = bnb.quantize_4bit(x, blocksize=64, quant_type=kind)
        assert_same(codes, theirs.view(-1))
        other = x * (1 / scale) if count == 61 else x / scale
        nibbles = torch.stack([codes >> 4, codes & 15], 1).view(-1)[:count]
        differ += int((order[torch.bucketize(other, CODEBOOKS[kind].midpoints)] != nibbles).sum())
    assert differ > 100  # the other way of scaling would have shown


def test_the_first_of_two_weights_is_in_the_high_half_of_a_byte():
    codes, _ = ops.quantize_4bit(torch.tensor([1.0, -1.0, 0.0, 1.0]), 64, "nf4")
    assert codes.tolist() == [0xF0, 0x7F]


@pytest.mark.parametrize("view", ["transposed", "every other column", "middle", "expanded"])
def test_strided_weights_give_the_bytes_of_their_copy(view):
    x = torch.randn(70, 66, generator=torch.Generator().manual_seed(2))
    strided = {
        "transposed": x.T,
        "every other column": x[:, ::2],
        "middle": x[3:41, 5:64],
        "expanded": x[:1].expand(9, -1),
    }[view]
    codes, absmax = ops.quantize_4bit(strided, 32, "nf4")
    copy = ops.quantize_4bit(strided.clone(memory_format=torch.contiguous_format), 32, "nf4")
    assert_same(codes, copy[0])
    assert_same(absmax, copy[1])


@given(
    count=st.integers(1, 3000),
    of=st.sampled_from(["normal", "heavy", "zero", "constant", "subnormal", "tiny"]),
    seed=st.integers(0, 2**16),
)
def test_quantised_scales_are_the_same_bytes_in_all_three(count, of, seed):
    absmax = weights(of, count, seed).abs()
    quantized = ops.quantize_absmax(absmax)
    codes, scales, offset = quantized
    for ours, defined in zip(quantized, reference.quantize_absmax(absmax), strict=True):
        assert_same(ours, defined)
    theirs, state = bnb.quantize_blockwise(absmax - absmax.mean(), blocksize=256)
    assert_same(codes, theirs)
    assert_same(scales, state.absmax)
    assert_same(offset, absmax.mean())

    decoded = ops.dequantize_absmax(codes, scales, offset)
    assert_same(decoded, reference.dequantize_absmax(codes, scales, offset))
    assert_same(decoded, bnb.dequantize_blockwise(theirs, state) + offset)


def test_scales_beside_every_change_of_code_take_bitsandbytes_side():
    middle = (DYNAMIC_LEVELS[:-1].double() + DYNAMIC_LEVELS[1:].double()) / 2
    # Codes change between cells; the edges lie within one cell, 3e-5, of the true midpoints.
    cells = ((middle + 1) / 2 * 65535).round()
    edges = torch.cat([((cells + step - 0.5) / 65535 * 2 - 1) for step in (-1, 0, 1, 2)])
    near = neighbours(edges.float().clamp(-1, 1), 12)
    half = torch.cat([near, near.new_zeros(-len(near) % 127)]).view(-1, 127)
    # Symmetric blocks with a largest value of 1: mean 0, scale 1.
    blocks = torch.cat([torch.ones(len(half), 1), half, -half, -torch.ones(len(half), 1)], dim=1)
    absmax = blocks.reshape(-1)
    codes, scales, offset = ops.quantize_absmax(absmax)
    theirs, state = bnb.quantize_blockwise(absmax - absmax.mean(), blocksize=256)
    assert_same(codes, theirs)
    assert_same(scales, state.absmax)
    assert abs(float(offset)) < 1e-6


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_weight_is_what_bitsandbytes_makes_of_it_with_double_quantisation(kind):
    weight = weights("normal", 300 * 448).view(300, 448).bfloat16()
    codes, absmax = ops.quantize_4bit(weight, 64, kind)
    packed = ops.quantize_absmax(absmax)
    theirs, state = bnb.quantize_4bit(weight, quant_type=kind, compress_statistics=True)
    assert_same(codes, theirs.view(-1))
    assert_same(packed[0], state.absmax)
    assert_same(packed[1], state.state2.absmax)
    assert_same(packed[2], state.offset)
    scales = ops.dequantize_absmax(*packed)
    decoded = ops.dequantize_4bit(codes, scales, weight.shape, 64, kind, torch.bfloat16)
    # FP4 has two codes for zero. bitsandbytes decodes the second to 0 by its AVX-512 kernel and to
    # -0 by its other one; adding 0 leaves all else as it is.
    assert_same(decoded, bnb.dequantize_4bit(theirs, state) + 0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused_with_its_place(bad):
    x = torch.ones(5, 70)
    x[3, 17] = x[4, 2] = bad
    with pytest.raises(ModelError, match=r"2 value\(s\) that are not finite.*\[3, 17\]"):
        ops.quantize_4bit(x, 64, "nf4")


def test_scales_whose_mean_overflows_are_refused():
    with pytest.raises(ModelError, match=r"quant\.double: false"):
        ops.quantize_absmax(torch.full((8,), 3e38))


@pytest.mark.parametrize(
    ("x", "block", "error"),
    [
        (torch.ones(4, dtype=torch.float64), 64, TypeError),
        (torch.ones(4, dtype=torch.int32), 64, TypeError),
        (torch.ones(0), 64, ValueError),
        (torch.ones(4), 48, ValueError),
        (torch.ones(4), 16, ValueError),
    ],
)
@pytest.mark.parametrize("kind", CODEBOOKS)
def test_what_cannot_be_quantised_is_refused(x, block, error, kind):
    with pytest.raises(error):
        ops.quantize_4bit(x, block, kind)


def test_codes_of_another_shape_are_refused():
    codes, absmax = ops.quantize_4bit(torch.ones(10, 10), 64, "nf4")
    with pytest.raises(ValueError, match="50 bytes and 2 scales"):
        ops.dequantize_4bit(codes, absmax[:1], (10, 10), 64, "nf4", torch.float32)


def test_a_format_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match="'nf5'; there are nf4, fp4, int4"):
        ops.quantize_4bit(torch.ones(64), 64, "nf5")
    with pytest.raises(ValueError, match="'nf5'"):
        ops.dequantize_4bit(torch.ones(32).byte(), torch.ones(1), (64,), 64, "nf5", torch.float32)


@given(
    count=st.integers(1, 9000),
    block=st.sampled_from(BLOCKS),
    dtype=st.sampled_from(DTYPES),
    of=st.sampled_from(WEIGHTS),
    seed=st.integers(0, 2**16),
)
def test_int4_is_the_uniform_quantiser_in_blocks(count, block, dtype, of, seed):
    x = weights(of, count, seed).clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    codes, absmax = ops.quantize_4bit(x, block, "int4")
    defined = reference.quantize_4bit(x, block, "int4")
    assert_same(codes, defined[0])
    assert_same(absmax, defined[1])
    nibbles = torch.stack([codes >> 4, codes & 15], 1).view(-1)[:count].double() - 8
    a = absmax.double().repeat_interleave(block)[:count]
    scaled = torch.where(a > 1e-37, x.double() * 7 / a.clamp(min=1e-300), 0.0)
    # round(s·x) in float64; float32 may take the other side within its rounding of a half.
    beside = (scaled - scaled.floor() - 0.5).abs() < 7 * 2**-22
    off = (nibbles - scaled.round()).abs()
    assert (off[~beside & (a > 1e-37)] == 0).all()
    assert (off[beside & (a > 1e-37)] <= 1).all()
    decoded = ops.dequantize_4bit(codes, absmax, (count,), block, "int4", torch.float32)
    assert_same(
        decoded, reference.dequantize_4bit(codes, absmax, (count,), block, "int4", decoded.dtype)
    )
    step = a / 7
    assert ((decoded.double() - x.double()).abs() <= step * (0.5 + 2**-20) + 1e-37).all()


def test_the_operations_keep_torchs_contract_of_shapes_and_aliases():
    x = torch.randn(9, 33)
    codes, absmax = ops.quantize_4bit(x, 64, "nf4")
    packed = ops.quantize_absmax(absmax)
    checks = ("test_schema", "test_faketensor")
    etude = torch.ops.etude
    torch.library.opcheck(etude.quantize_4bit.default, (x, 64, "fp4"), test_utils=checks)
    decode = (codes, absmax, (9, 33), 64, "nf4", torch.bfloat16)
    torch.library.opcheck(etude.dequantize_4bit.default, decode, test_utils=checks)
    torch.library.opcheck(etude.quantize_absmax.default, (absmax,), test_utils=checks)
    torch.library.opcheck(etude.dequantize_absmax.default, packed, test_utils=checks)
    torch.library.opcheck(etude.quantize_int8.default, (x,), test_utils=checks)
    rows = (*ops.quantize_int8(x), torch.bfloat16)
    torch.library.opcheck(etude.dequantize_int8.default, rows, test_utils=checks)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 300),
    dtype=st.sampled_from(DTYPES),
    of=st.sampled_from(["normal", "heavy", "constant", "one spike"]),
    seed=st.integers(0, 2**16),
)
def test_int8_codes_and_scales_are_the_same_bytes_in_all_three(rows, columns, dtype, of, seed):
    x = weights(of, rows * columns, seed).view(rows, columns)
    x = x.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    panel = cpu.PANEL
    try:
        cpu.PANEL = 1024
        codes, absmax = ops.quantize_int8(x)
        decoded = ops.dequantize_int8(codes, absmax, torch.float32)
    finally:
        cpu.PANEL = panel
    defined = reference.quantize_int8(x)
    assert_same(codes, defined[0])
    assert_same(absmax, defined[1])
    assert_same(decoded, reference.dequantize_int8(codes, absmax, torch.float32))
    # Of rows too small for a reciprocal bitsandbytes makes what casting infinity gives.
    sound = absmax > 1e-36
    theirs, stats, _ = bnb.int8_vectorwise_quant(x[sound])
    assert_same(codes[sound], theirs)
    assert_same(absmax[sound], stats)
    assert_same(decoded[sound], bnb.int8_vectorwise_dequant(theirs, stats))


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-40, 1e-38, 3e-37, 1.0, 2.6e36])
def test_int8_rows_of_any_size_are_within_half_a_step(scale):
    x = torch.linspace(-1, 1, 255)[None] * scale
    codes, absmax = ops.quantize_int8(x)
    assert_same(codes, reference.quantize_int8(x)[0])
    decoded = ops.dequantize_int8(codes, absmax, torch.float32).double()
    # Half a step, and below the normal range the spacing of float32 itself.
    assert ((decoded - x.double()).abs() <= absmax.double() * (0.5 + 1e-4) / 127 + 2e-40).all()


def test_int8_refuses_what_it_cannot_hold():
    with pytest.raises(ModelError, match="not finite"):
        ops.quantize_int8(torch.tensor([[1.0, float("inf")]]))
    with pytest.raises(ModelError, match=r"above 2\.7e\+36"):
        ops.quantize_int8(torch.tensor([[1.0, 3e36]]))
    with pytest.raises(ValueError, match="matrix"):
        ops.quantize_int8(torch.ones(4))
    with pytest.raises(ValueError, match="one a row"):
        ops.dequantize_int8(torch.ones(3, 4).char(), torch.ones(2), torch.float32)


MEMORY = """
import resource, torch
torch.set_num_threads(1)
from etude.tuning.kernels import ops
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
warm = ops.quantize_4bit(torch.randn(1 << 18), 64, "nf4")
ops.dequantize_4bit(*warm, (1 << 18,), 64, "nf4", torch.bfloat16)
x = torch.ones(1 << 26, dtype=torch.bfloat16)
before = peak()
codes, absmax = ops.quantize_4bit(x, 64, "nf4")
print(peak() - before - codes.nbytes - absmax.nbytes)
before = peak()
out = ops.dequantize_4bit(codes, absmax, x.shape, 64, "nf4", torch.bfloat16)
print(peak() - before - out.nbytes)
"""


def test_quantising_and_decoding_take_no_more_than_a_few_panels_beside_the_result():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    for extra in map(int, done.stdout.split()):
        # 134 million bytes of weights; a panel and its companions are some 2 MiB.
        assert extra < 8 * 2**20
