"""The formats' levels and errors, against their definition and the published table."""

from __future__ import annotations

import pytest
import torch

from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.kernels import ops
from etude.tuning.kernels.codebooks import CODEBOOKS
from etude.tuning.quant import build
from etude.tuning.quant.formats import bits_per_weight, derive_levels, worst_error

# Mean absolute and mean relative error on N(0, 1), 1024 × 1024, by block size, as bitsandbytes'
# test_functional.py, test_4bit_quant, has them: means over many draws.
PUBLISHED = {
    ("nf4", 32): (0.067746, 0.189726),
    ("nf4", 64): (0.072798, 0.203339),
    ("nf4", 128): (0.076831, 0.215237),
    ("nf4", 256): (0.080337, 0.226105),
    ("nf4", 512): (0.083547, 0.236079),
    ("nf4", 1024): (0.086610, 0.245370),
    ("nf4", 2048): (0.089592, 0.254163),
    ("nf4", 4096): (0.092547, 0.262473),
    ("fp4", 64): (0.096543, 0.260125),
    ("fp4", 128): (0.102969, 0.275817),
}
SPREADS = 7
"""So many standard deviations above the mean are allowed there; here, also below it."""


def test_nf4_levels_are_the_quantiles_that_define_them():
    # The constants were computed in float32: two units in the last place at 1.
    assert torch.allclose(derive_levels(), CODEBOOKS["nf4"].levels.double(), rtol=0, atol=2.4e-7)


def test_fp4_levels_are_the_numbers_that_the_bits_stand_for():
    # Sign, two bits of exponent with bias 1... the table's largest number is scaled to 1.
    for code in range(16):
        sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
        size = {0: mantissa / 16, 1: 8 + 4 * mantissa, 2: 4 + 2 * mantissa, 3: 2 + mantissa}[
            exponent
        ]
        level = CODEBOOKS["fp4"].levels[code].double()
        assert abs(float(level) - (-1) ** sign * size / 12) < 2**-24


@pytest.mark.parametrize(("kind", "block"), PUBLISHED)
def test_error_on_normal_weights_is_the_published_one(kind, block):
    generator = torch.Generator().manual_seed(7)
    absolute, relative = [], []
    for _ in range(8):
        x = torch.randn(1024, 1024, generator=generator)
        codes, absmax = ops.quantize_4bit(x, block, kind)
        error = (ops.dequantize_4bit(codes, absmax, x.shape, block, kind, x.dtype) - x).abs()
        absolute.append(float(error.mean()))
        # bitsandbytes takes the relative error of all weights, |x| + 1e-8 below the line.
        relative.append(float((error / (x.abs() + 1e-8)).mean()))
    for found, published in zip((absolute, relative), PUBLISHED[kind, block], strict=True):
        spread = float(torch.tensor(found).std())
        assert spread < 6e-4
        assert all(abs(one - published) < SPREADS * spread for one in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("kind", CODEBOOKS)
def test_no_weight_is_further_off_than_the_bound(dtype, double, scale, kind):
    x = scale * torch.randn(512, 512, generator=torch.Generator().manual_seed(3)) ** 3
    # Fill the widest gap between two levels.
    inside = CODEBOOKS[kind].ascending[CODEBOOKS[kind].ascending >= -1]
    widest = int((inside[1:] - inside[:-1]).argmax())
    x[:, :64] = x[:, :64].abs().amax(1, keepdim=True) * torch.linspace(
        float(inside[widest]), float(inside[widest + 1]), 64
    )
    x[:, 0] = x[:, :64].abs().amax(1) / inside[[widest, widest + 1]].abs().max()
    codes, absmax = ops.quantize_4bit(x, 64, kind)
    stored = ops.dequantize_absmax(*ops.quantize_absmax(absmax)) if double else absmax
    decoded = ops.dequantize_4bit(codes, stored, x.shape, 64, kind, dtype)
    error = (decoded.double() - x.double()).abs().view(-1, 64).amax(1)
    bound = worst_error(absmax, stored, dtype, kind)
    assert (error <= bound).all()
    assert float((error / bound).max()) > 0.95  # the bound is met, not merely large


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_8_bit_weight_is_further_off_than_the_bound(dtype):
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(3)) ** 3
    codes, absmax = ops.quantize_int8(x)
    decoded = ops.dequantize_int8(codes, absmax, dtype)
    error = (decoded.double() - x.double()).abs().amax(1)
    bound = worst_error(absmax, absmax, dtype, "int8")
    assert (error <= bound).all()
    assert float((error / bound).max()) > (0.95 if dtype == torch.float32 else 0.5)


@pytest.mark.parametrize("kind", [*CODEBOOKS, "int8"])
def test_a_weight_takes_as_many_bits_as_the_buffers_say(kind):
    for more in ({"double": False}, {"double": True}, {"block": 256}):
        quant = QuantSpec(kind=kind, **more)
        layer = build.quantized(torch.randn(256, 1024), quant, torch.float32)
        bits = 8 * layer.quantized_bytes / (256 * 1024)
        rest = 32 * 256 if kind == "int8" else 32 * quant.double
        assert bits == pytest.approx(bits_per_weight(quant) + rest / (256 * 1024))
    assert bits_per_weight(QuantSpec()) == pytest.approx(4.127, abs=5e-4)


@pytest.mark.parametrize("kind", ["none", "native"])
def test_what_is_not_quantised_here_has_no_bits(kind):
    with pytest.raises(ValueError, match=kind):
        bits_per_weight(QuantSpec(kind=kind))
