"""Packing: what shares a row stays apart in it, and a plan is a function of seed and epoch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.packing import (
    IGNORED,
    ROW_MULTIPLE,
    collate,
    collate_padded,
    pack,
    plan_steps,
)

lengths_lists = st.lists(st.integers(1, 150), min_size=1, max_size=80)


@st.composite
def encoded_samples(draw) -> list[EncodedSample]:
    samples = []
    for number in range(draw(st.integers(1, 6))):
        length = draw(st.integers(1, 12))
        # Ids tell sample and place, so that a token that strays is recognised.
        ids = np.arange(length, dtype=np.int32) + 100 * (number + 1)
        flags = draw(st.lists(st.booleans(), min_size=length, max_size=length))
        trained = np.array(flags, dtype=np.bool_)
        trained[0] = False
        samples.append(EncodedSample(ids, trained, f"f:{number}"))
    return samples


@given(lengths_lists, st.integers(20, 200))
def test_every_item_is_packed_once_and_no_bin_overflows_but_for_one_long_item(lengths, capacity):
    bins = pack(lengths, capacity)
    assert sorted(index for items in bins for index in items) == list(range(len(lengths)))
    for items in bins:
        assert sum(lengths[i] for i in items) <= capacity or len(items) == 1


@given(st.lists(st.integers(1, 100), min_size=1, max_size=80))
def test_no_two_bins_could_have_been_one(lengths):
    # Any fit does this: a bin is opened only when no other has room.
    fills = sorted(sum(lengths[i] for i in items) for items in pack(lengths, 100))
    if len(fills) > 1:
        assert fills[0] + fills[1] > 100


def fewest_bins(lengths: list[int], capacity: int) -> int:
    """Find the optimum by trying all subsets: the least (bins, room used in the last) of each."""
    best = {0: (1, 0)}
    for chosen in range(1, 1 << len(lengths)):
        options = []
        for item, length in enumerate(lengths):
            if chosen >> item & 1:
                bins, used = best[chosen & ~(1 << item)]
                fits = used + length <= capacity
                options.append((bins, used + length) if fits else (bins + 1, length))
        best[chosen] = min(options)
    return best[(1 << len(lengths)) - 1][0]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_bins_are_within_eleven_ninths_of_the_fewest_possible(lengths):
    assert len(pack(lengths, 30)) <= 11 / 9 * fewest_bins(lengths, 30) + 6 / 9


def test_an_item_goes_into_the_fullest_bin_that_has_room_for_it():
    # Largest first: 60 and 50 open bins, 45 fills up the second (5 left), 40 the first (0 left).
    assert pack([40, 45, 50, 60], 100) == [[3, 0], [2, 1]]
    # First fit would put the 20 beside the 70; the 75 is fuller.
    assert pack([70, 75, 20], 100) == [[1, 2], [0]]


@given(encoded_samples())
def test_packed_positions_restart_and_lengths_add_up(samples):
    batch = collate(samples)
    lengths = [len(sample) for sample in samples]
    filling = -sum(lengths) % ROW_MULTIPLE
    segments = [*lengths, filling] if filling else lengths
    shape = (1, sum(segments))
    assert batch.input_ids.shape == batch.position_ids.shape == batch.targets.shape == shape
    assert batch.lengths == segments
    expected = [place for length in segments for place in range(length)]
    assert batch.position_ids[0].tolist() == expected


@given(encoded_samples())
def test_what_fills_a_row_up_is_never_trained(samples):
    batch = collate(samples)
    total = sum(len(sample) for sample in samples)
    assert batch.input_ids.shape[1] % ROW_MULTIPLE == 0
    assert batch.input_ids.shape[1] - total < ROW_MULTIPLE
    assert batch.targets[0, total:].tolist() == [IGNORED] * (batch.input_ids.shape[1] - total)


@given(encoded_samples())
def test_a_target_is_the_next_token_of_the_same_sample_where_that_is_trained(samples):
    batch = collate(samples)
    ids, targets = batch.input_ids[0].tolist(), batch.targets[0].tolist()
    start = 0
    for sample in samples:
        for place in range(len(sample)):
            has_target = place + 1 < len(sample) and bool(sample.trained[place + 1])
            expected = ids[start + place + 1] if has_target else IGNORED
            assert targets[start + place] == expected
        start += len(sample)
    assert batch.trained_tokens == sum(sample.trained_tokens for sample in samples)


@given(encoded_samples())
def test_padding_asks_for_the_same_predictions_as_packing(samples):
    packed, padded = collate(samples), collate_padded(samples, pad_id=7)
    seen = [
        (ids[mask == 1].tolist(), targets[mask == 1].tolist())
        for ids, mask, targets in zip(
            padded.input_ids, padded.attention_mask, padded.targets, strict=True
        )
    ]
    pieces = zip(
        packed.input_ids[0].split(packed.lengths),
        packed.targets[0].split(packed.lengths),
        strict=True,
    )
    pieces = [(ids.tolist(), targets.tolist()) for ids, targets in pieces]
    assert seen == pieces[: len(samples)]
    assert (padded.input_ids[padded.attention_mask == 0] == 7).all()
    assert (padded.targets[padded.attention_mask == 0] == IGNORED).all()


@given(lengths_lists, st.integers(1, 20), st.integers(16, 200), st.integers(0, 5))
def test_an_epoch_takes_every_sample_once_in_steps_of_the_batch_size(lengths, batch, micro, epoch):
    steps = plan_steps(lengths, batch, micro, seed=3, epoch=epoch)
    members = [[index for row in step for index in row] for step in steps]
    assert sorted(index for step in members for index in step) == list(range(len(lengths)))
    assert all(len(step) == batch for step in members[:-1])
    assert 1 <= len(members[-1]) <= batch
    for step in steps:
        for row in step:
            assert sum(lengths[index] for index in row) <= micro or len(row) == 1


def test_a_plan_is_repeated_by_its_seed_and_epoch_and_by_no_other():
    lengths = list(range(1, 101))
    plan = plan_steps(lengths, 8, 256, seed=1, epoch=2)
    assert plan == plan_steps(lengths, 8, 256, seed=1, epoch=2)
    assert plan != plan_steps(lengths, 8, 256, seed=1, epoch=3)
    assert plan != plan_steps(lengths, 8, 256, seed=2, epoch=2)
    # Nor does an epoch of one seed repeat another epoch of the next.
    assert plan != plan_steps(lengths, 8, 256, seed=2, epoch=1)
