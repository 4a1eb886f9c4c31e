"""Packed rows: a segment's logits are those it has alone."""

from __future__ import annotations

import pytest
import torch

from etude.tuning.fusion.packed_attention import packed_attention, packed_rows


@pytest.fixture
def model(tiny_llama):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama(layers=3), dtype=torch.float64)


def _row(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    segments = [torch.randint(0, 512, (n,), generator=generator) for n in lengths]
    positions = torch.cat([torch.arange(n) for n in lengths])
    return segments, torch.cat(segments)[None], positions[None]


@pytest.mark.parametrize("lengths", [[7], [1, 9, 3], [20, 1, 1, 40]])
def test_a_segment_in_a_packed_row_has_the_logits_it_has_alone(model, lengths):
    segments, row, positions = _row(lengths)
    with torch.no_grad(), packed_rows(model):
        packed = model(
            input_ids=row, position_ids=positions, segment_lengths=lengths, use_cache=False
        ).logits[0]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=s[None]).logits[0] for s in segments])
    # float64 through 3 layers: the two orders of summation differ by a few units of 2^-52.
    torch.testing.assert_close(packed, alone, rtol=1e-11, atol=1e-12)


def test_changing_one_segment_changes_no_bit_of_the_others(model):
    lengths = [11, 8, 13]
    _, row, positions = _row(lengths)
    other = row.clone()
    other[0, :11] = (other[0, :11] + 1) % 512
    options = {"position_ids": positions, "segment_lengths": lengths, "use_cache": False}
    with torch.no_grad(), packed_rows(model):
        before = model(input_ids=row, **options).logits[0]
        after = model(input_ids=other, **options).logits[0]
    assert torch.equal(before[11:], after[11:])
    assert not torch.equal(before[:11], after[:11])


def test_without_segment_lengths_a_row_leaks_so_the_test_above_can_fail(model):
    _, row, positions = _row([11, 8])
    other = row.clone()
    other[0, :11] = (other[0, :11] + 1) % 512
    with torch.no_grad(), packed_rows(model):
        before = model(input_ids=row, position_ids=positions, use_cache=False).logits[0]
        after = model(input_ids=other, position_ids=positions, use_cache=False).logits[0]
    assert not torch.equal(before[11:], after[11:])


def test_the_models_own_attention_is_back_after_the_block(model):
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError), packed_rows(model):
        raise RuntimeError
    assert model.config._attn_implementation == before


def test_a_sliding_window_hides_what_lies_further_back():
    q, k, v = (torch.randn(1, 2, 10, 4, dtype=torch.float64) for _ in range(3))
    module = torch.nn.Module()
    windowed, _ = packed_attention(module, q, k, v, None, sliding_window=3)
    k2, v2 = k.clone(), v.clone()
    k2[:, :, :5] += 1
    v2[:, :, :5] += 1
    moved, _ = packed_attention(module, q, k2, v2, None, sliding_window=3)
    assert torch.equal(windowed[:, 7:], moved[:, 7:])
    assert not torch.equal(windowed[:, 6], moved[:, 6])


@pytest.mark.parametrize("window", [None, 3])
def test_soft_caps_and_sinks_are_computed_as_transformers_does(window):
    from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as capped
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as sunk

    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, 10, 4, dtype=torch.float64, generator=generator)
        for heads in (4, 2, 2)
    )
    module = torch.nn.Module().eval()
    module.num_key_value_groups = 2
    module.sinks = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    position = torch.arange(10)
    behind = position[:, None] - position[None, :]
    seen = (behind >= 0) & (behind < (window or 10))
    mask = torch.zeros(10, 10, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    options = {"scaling": 0.7, "sliding_window": window}

    theirs, _ = sunk(module, q, k, v, mask, scaling=0.7)
    ours, _ = packed_attention(module, q, k, v, None, s_aux=module.sinks, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)

    theirs, _ = capped(module, q, k, v, mask, scaling=0.7, softcap=1.5)
    ours, _ = packed_attention(module, q, k, v, None, softcap=1.5, **options)
    # Gemma 2's own code takes the softmax in float32.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
