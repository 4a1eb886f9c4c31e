"""Matching of hidden states: its gradient, its layers, and the positions that count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from etude.core.errors import RecipeError
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.encoded import EncodedSample, TaggedWords
from etude.tuning.objectives.hidden_states import chosen, distance, layer_map, states_after


def test_the_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    own, known, projection = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((5, 3), (5, 4), (4, 3))
    )
    weights = torch.tensor([1, 0.5, 2, 1, 1], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, P: distance(x, known, P, weights),
        (own.requires_grad_(), projection.requires_grad_()),
    )
    by_hand = sum(
        w * ((projection @ x - y) ** 2).mean() for w, x, y in zip(weights, own, known, strict=True)
    )
    torch.testing.assert_close(distance(own, known, projection, weights), by_hand)


@pytest.mark.parametrize(
    ("pairs", "student", "teacher", "found"),
    [
        (None, 3, 6, [(1, 2), (2, 4)]),
        (None, 2, 2, [(1, 1)]),
        (None, 4, 2, [(1, 1), (2, 1), (3, 1)]),
        ([[1, 5]], 3, 6, [(1, 5)]),
    ],
)
def test_layers_are_matched_at_the_same_share_of_both_models(pairs, student, teacher, found):
    assert layer_map(pairs, student, teacher) == found


@pytest.mark.parametrize(
    ("pairs", "student", "teacher", "message"),
    [
        (None, 1, 6, "the student has one"),
        ([[3, 2]], 3, 6, "after 3 layers of the student"),
        ([[1, 0]], 3, 6, "after 0 layers of the teacher"),
    ],
)
def test_what_is_no_place_between_two_layers_is_refused(pairs, student, teacher, message):
    with pytest.raises(RecipeError, match=message):
        layer_map(pairs, student, teacher)


def sample(length, trained=(), **more):
    mask = np.zeros(length, dtype=np.bool_)
    mask[list(trained)] = True
    return EncodedSample(np.arange(length, dtype=np.int32), mask, "x", **more)


SAMPLES = {
    "answers": ([sample(4, [2, 3]), sample(3, [2])], [[1, 2], [1]], [1, 1, 1]),
    "classes": (
        [sample(2, label=1), sample(4, label=0)],
        [[0, 1], [0, 1, 2, 3]],
        [0.5, 0.5, 0.25, 0.25, 0.25, 0.25],
    ),
    "tags": (
        [
            sample(4, words=TaggedWords(np.array([1, 2], np.int32), np.array([0, 1], np.int32), 0)),
            sample(3, words=TaggedWords(np.array([1], np.int32), np.array([1], np.int32), 1)),
        ],
        [[1, 2], [1]],
        [1, 1, 1],
    ),
}


@pytest.mark.parametrize("task", SAMPLES)
def test_the_positions_are_those_that_the_task_trains_in_both_layouts(task):
    samples, places, weights = SAMPLES[task]
    width = max(len(one) for one in samples)
    padded = torch.arange(len(samples) * width).reshape(len(samples), width, 1).float()
    packed = torch.cat([padded[n, : len(one)] for n, one in enumerate(samples)])[None]
    expected = torch.cat([padded[n, places[n]] for n in range(len(samples))])
    for states, layout in ((packed, Layout()), (padded, Layout(packed=False))):
        found, found_weights = chosen(states, Batch(samples, layout))
        assert torch.equal(found, expected)
        assert found_weights.tolist() == weights


def test_states_are_those_that_transformers_gives_out(tiny_llama):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama(layers=4), dtype=torch.float32)
    ids = torch.arange(5, 15)[None]
    with states_after([1, 3, 1], model) as found:
        known = model(input_ids=ids, output_hidden_states=True).hidden_states
    for states, place in zip(found, (1, 3, 1), strict=True):
        assert torch.equal(states, known[place])
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)
