"""Dynamic 8-bit codes: the nearest levels in float64, and those of bitsandbytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from etude.tuning.kernels.codebooks import DYNAMIC_LEVELS, DYNAMIC_UNSIGNED_LEVELS
from etude.tuning.kernels.dynamic import dequantize_dynamic, quantize_dynamic

LEVELS = {True: DYNAMIC_LEVELS, False: DYNAMIC_UNSIGNED_LEVELS}


@pytest.mark.parametrize("signed", [True, False])
def test_the_dynamic_maps_are_those_of_bitsandbytes(signed):
    functional = pytest.importorskip("bitsandbytes.functional")
    assert torch.equal(functional.create_dynamic_map(signed=signed), LEVELS[signed])


@given(
    count=st.integers(1, 1500),
    signed=st.booleans(),
    decades=st.floats(0, 12),
    scale=st.sampled_from([1e-30, 1e-4, 1.0, 1e30]),
    seed=st.integers(0, 2**31),
)
@example(count=300, signed=False, decades=0.0, scale=1e-39, seed=3)
@example(count=300, signed=True, decades=2.0, scale=1e-42, seed=4)
def test_every_code_is_the_nearest_level_in_float64(count, signed, decades, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator) * scale
    x *= 10 ** (-decades * torch.rand(count, generator=generator))
    x[torch.rand(count, generator=generator) < 0.1] = 0
    x = x if signed else x.abs()
    codes, absmax = quantize_dynamic(x, signed=signed)
    assert codes.dtype == torch.uint8
    assert torch.equal(absmax, torch.stack([b.abs().max() for b in x.split(256)]))
    block = absmax.double().repeat_interleave(256)[:count]
    unit = torch.where(block > 0, x.double() / block.clamp(min=1e-300), 0.0)
    levels = LEVELS[signed].double()
    error = (levels[codes.long()] - unit).abs()
    if not signed:  # zero is for zero only: a positive number takes the lowest positive level
        assert bool((codes[x > 0] > 0).all())
        levels = torch.where(levels > 0, levels, torch.inf)
        error[x == 0] = 0
    best = torch.where(x == 0, 0.0, (unit[:, None] - levels).abs().min(1).values)
    # x / absmax is rounded twice to float32 (reciprocal, product), and so is the midpoint.
    assert bool((error - best <= 3 * 2**-24 * unit.abs() + 1e-38).all())
    decoded = dequantize_dynamic(codes, absmax, signed=signed)
    assert torch.equal(decoded, LEVELS[signed][codes.long()] * block.float())
    assert bool((decoded[x == 0] == 0).all())


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("count", [256, 4096, 5001])
def test_codes_are_those_of_bitsandbytes_where_its_table_tells_levels_apart(signed, count):
    functional = pytest.importorskip("bitsandbytes.functional")
    torch.manual_seed(count)
    x = torch.randn(count)
    x = x if signed else x.square()
    codes, absmax = quantize_dynamic(x, signed=signed)
    theirs, state = functional.quantize_blockwise(x, code=LEVELS[signed], blocksize=256)
    assert torch.equal(absmax, state.absmax)
    decoded = functional.dequantize_blockwise(codes, state)
    assert torch.equal(dequantize_dynamic(codes, absmax, signed=signed), decoded)
    # Its table has 65536 cells over [-1, 1] and takes the level nearest a cell's center: codes may
    # differ where a midpoint between levels is within half a cell, and nowhere else.
    unit = x.double() / absmax.double().repeat_interleave(256)[:count]
    levels = LEVELS[signed].double()
    midpoints = (levels[:-1] + levels[1:]) / 2
    near = (unit[:, None] - midpoints).abs().min(1).values <= 1 / 65535 + 1e-7
    assert torch.equal(codes[~near], theirs[~near])
    assert float(near.float().mean()) < 0.1
