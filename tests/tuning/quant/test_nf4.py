"""NF4's levels and its error, against their definition and the published table."""

from __future__ import annotations

import pytest
import torch

from etude.tuning.kernels import ops
from etude.tuning.kernels.codebooks import NF4_LEVELS
from etude.tuning.quant.nf4 import bits_per_weight, derive_levels, worst_error
from etude.tuning.specs import QuantSpec

# Mean absolute and mean relative error of NF4 on N(0, 1), 1024 × 1024, by block size: the table
# in bitsandbytes' test_functional.py, test_4bit_quant.
PUBLISHED = {
    32: (0.067746, 0.189726),
    64: (0.072798, 0.203339),
    128: (0.076831, 0.215237),
    256: (0.080337, 0.226105),
    512: (0.083547, 0.236079),
    1024: (0.086610, 0.245370),
    2048: (0.089592, 0.254163),
    4096: (0.092547, 0.262473),
}


def test_levels_are_the_quantiles_that_define_them():
    # The constants were computed in float32: two units in the last place at 1.
    assert torch.allclose(derive_levels(), NF4_LEVELS.double(), rtol=0, atol=2.4e-7)


@pytest.mark.parametrize("block", PUBLISHED)
def test_error_on_normal_weights_is_the_published_one(block):
    x = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(7))
    codes, absmax = ops.quantize_nf4(x, block)
    error = (ops.dequantize_nf4(codes, absmax, x.shape, block, torch.float32) - x).abs()
    published_abs, published_rel = PUBLISHED[block]
    # The table's numbers are means over draws, with a spread of about 1e-4. bitsandbytes takes the
    # relative error of all but near-zero weights, |x| + 1e-8 below the line.
    assert float(error.mean()) == pytest.approx(published_abs, abs=5e-4)
    assert float((error / (x.abs() + 1e-8)).mean()) == pytest.approx(published_rel, abs=3e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_no_weight_is_further_off_than_the_bound(dtype, double, scale):
    x = scale * torch.randn(512, 512, generator=torch.Generator().manual_seed(3)) ** 3
    x[0, :16] = -NF4_LEVELS[0] * torch.linspace(0.696, 1, 16) * scale  # fill the widest gap
    codes, absmax = ops.quantize_nf4(x, 64)
    stored = ops.dequantize_absmax(*ops.quantize_absmax(absmax)) if double else absmax
    decoded = ops.dequantize_nf4(codes, stored, x.shape, 64, dtype)
    error = (decoded.double() - x.double()).abs().view(-1, 64).amax(1)
    bound = worst_error(absmax, stored, dtype)
    assert (error <= bound).all()
    assert float((error / bound).max()) > 0.95  # the bound is met, not merely large


def test_a_weight_takes_as_many_bits_as_the_buffers_say():
    from etude.tuning.quant.linear import QuantLinear

    for quant in (QuantSpec(double=False), QuantSpec(double=True), QuantSpec(block=256)):
        layer = QuantLinear.from_weight(torch.randn(256, 1024), quant, torch.float32)
        bits = 8 * layer.quantized_bytes / (256 * 1024)
        offset = 32 if quant.double else 0
        assert bits == pytest.approx(bits_per_weight(quant) + offset / (256 * 1024))
    assert bits_per_weight(QuantSpec()) == pytest.approx(4.127, abs=5e-4)
