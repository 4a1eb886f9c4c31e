"""GGUF's blocks against the `gguf` package, which is llama.cpp's own."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st

from etude.tuning.kernels.gguf import FORMATS, PANEL, dequantize_gguf, reference

# Where a block keeps its float16 scales.
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def theirs(raw: torch.Tensor, kind: str) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # random scales overflow
        return torch.from_numpy(gguf.quants.dequantize(raw.numpy(), Kind[kind]))


def assert_same_bits(ours: torch.Tensor, other: torch.Tensor) -> None:
    """Compare as bits, signs of zero included; of NaN only that it is NaN."""
    nan = other.isnan()
    assert torch.equal(ours.isnan(), nan)
    assert torch.equal(ours[~nan].view(torch.int32), other[~nan].view(torch.int32))


def test_sizes_are_those_of_llama_cpp() -> None:
    sizes = {kind: (form.weights, form.bytes) for kind, form in FORMATS.items()}

    assert sizes == {kind: gguf.GGML_QUANT_SIZES[Kind[kind]] for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
@given(rows=st.integers(1, 5), blocks=st.integers(1, 9), seed=st.integers(0, 1 << 32))
def test_any_bytes_decode_to_the_same_bits_in_all_three(
    kind: str, rows: int, blocks: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    size = blocks * FORMATS[kind].bytes
    raw = torch.from_numpy(draw.integers(0, 256, (rows, size), dtype=np.uint8))
    expected = theirs(raw, kind)

    assert_same_bits(dequantize_gguf(raw, kind, expected.shape, torch.float32), expected)
    assert_same_bits(reference(raw, kind, expected.shape, torch.float32), expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_scale_decodes_to_the_same_bits(kind: str) -> None:
    # Each of the 65,536 float16 numbers, subnormal, infinite and NaN ones included, in each place.
    draw = np.random.default_rng(0)
    raw = draw.integers(0, 256, (1 << 16, FORMATS[kind].bytes), dtype=np.uint8)
    for start in HALVES.get(kind, (0,)):
        numbers = draw.permutation(np.arange(1 << 16, dtype=np.uint16))
        raw[:, start : start + 2] = numbers[:, None].view(np.uint8)
    blocks = torch.from_numpy(raw)
    expected = theirs(blocks, kind)
    assert expected.numel() > 2 * PANEL

    assert_same_bits(dequantize_gguf(blocks, kind, expected.shape, torch.float32), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", FORMATS)
def test_other_dtypes_are_the_float32_weight_rounded_once(kind: str, dtype: torch.dtype) -> None:
    raw = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (7, 3 * FORMATS[kind].bytes), dtype=np.uint8)
    )
    shape = 7, 3 * FORMATS[kind].weights
    whole = dequantize_gguf(raw, kind, shape, torch.float32)
    rounded = dequantize_gguf(raw, kind, shape, dtype)

    assert rounded.dtype == dtype
    assert torch.equal(rounded.nan_to_num(), whole.to(dtype).nan_to_num())


@pytest.mark.parametrize("kind", FORMATS)
def test_blocks_may_lie_anywhere_in_memory(kind: str) -> None:
    size = FORMATS[kind].bytes
    wide = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (6, 4 * size + 1), dtype=np.uint8)
    )
    strided = wide[::2, 1 : 1 + 2 * size]
    shape = 3, 2 * FORMATS[kind].weights

    assert_same_bits(
        dequantize_gguf(strided, kind, shape, torch.float32),
        dequantize_gguf(strided.clone().contiguous(), kind, shape, torch.float32),
    )
    odd = wide.view(-1)[1 : 1 + size]  # one block at an odd address
    assert_same_bits(
        dequantize_gguf(odd, kind, (FORMATS[kind].weights,), torch.float32),
        theirs(odd.clone()[None], kind)[0],
    )


def test_what_is_not_blocks_of_the_shape_is_refused() -> None:
    blocks = torch.zeros(4, 18, dtype=torch.uint8)

    with pytest.raises(ValueError, match="no block format 'Q9_9'; there are Q4_0"):
        dequantize_gguf(blocks, "Q9_9", (4, 32), torch.float32)
    with pytest.raises(TypeError, match="uint8"):
        dequantize_gguf(blocks.float(), "Q4_0", (4, 32), torch.float32)
    for shape in [(4, 31), (3, 32), (5, 32)]:
        with pytest.raises(ValueError, match="got 72 bytes"):
            dequantize_gguf(blocks, "Q4_0", shape, torch.float32)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_operation_keeps_torchs_contract_of_shapes_and_aliases(kind: str) -> None:
    form = FORMATS[kind]
    blocks = torch.zeros(3, 2 * form.bytes, dtype=torch.uint8)
    torch.library.opcheck(
        torch.ops.etude.dequantize_gguf.default,
        (blocks, kind, (3, 2 * form.weights), torch.bfloat16),
        test_utils=("test_schema", "test_faketensor"),
    )


MEMORY = """
import resource, torch
torch.set_num_threads(1)
from etude.tuning.kernels.gguf import FORMATS, dequantize_gguf
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
weights = 1 << 25
held = []
for kind, form in FORMATS.items():
    small = torch.zeros(1 << 19 >> 5, form.bytes, dtype=torch.uint8)
    dequantize_gguf(small, kind, (len(small), form.weights), torch.bfloat16)
for kind, form in FORMATS.items():
    blocks = torch.zeros(weights // form.weights, form.bytes, dtype=torch.uint8)
    blocks += 1
    before = peak()
    held.append(dequantize_gguf(blocks, kind, (weights,), torch.bfloat16))
    print(peak() - before - held[-1].nbytes)
    held.append(blocks)
"""


def test_decoding_takes_no_more_than_a_few_panels_beside_the_result() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    extra = list(map(int, done.stdout.split()))
    assert len(extra) == len(FORMATS)
    # 67 million bytes of result; a panel and its companions are some 4 MiB.
    assert max(extra) < 8 << 20
