"""Answers laid out beside the expected ones: exactly what differs is marked."""

import json
import math

import numpy as np
import torch

from etude.practice.compare import Tolerance
from etude.practice.judge.side_by_side import inputs, parts
from etude.practice.judge.verdict import Grid, Part, Shown
from etude.practice.protocol import Dataset, Foreign

T = Tolerance(rtol=1e-4, atol=1e-6)


def marked(grid):
    """Return the indices of the cells that are marked."""
    return [
        (grid.rows[i] if grid.rows else 0, grid.columns[j])
        for i, row in enumerate(grid.differs)
        for j, differs in enumerate(row)
        if differs
    ]


def test_only_entries_beyond_the_tolerance_are_marked():
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    got = torch.tensor([[1.00001, 2.0], [3.0, 4.5]])
    (part,) = parts(expected, got, T)
    assert part.differs
    assert marked(part.got) == marked(part.expected) == [(1, 1)]
    assert part.got.cells == [["1.0000", "2.0000"], ["3.0000", "4.5000"]]
    assert part.got.kind == "torch.float32"
    assert not part.got.cut


def test_a_difference_that_rounding_would_hide_is_seen():
    (part,) = parts(torch.tensor([1.5, 100.0]), torch.tensor([1.5, 100.02]), T)
    assert marked(part.got) == [(0, 1)]
    assert part.got.cells[0][1] != part.expected.cells[0][1]
    (part,) = parts(torch.tensor([0.5, 0.001]), torch.tensor([0.5, 0.001003]), T)
    assert part.got.cells[0][1] != part.expected.cells[0][1]


def test_of_a_large_array_the_place_of_the_first_difference_is_shown():
    expected = torch.zeros(3, 4, 50, 60)
    got = expected.clone()
    got[1, 2, 40, 55] = 1.0
    (part,) = parts(expected, got, T)
    assert part.got.slice == part.expected.slice == "[1, 2, :, :]"
    assert part.got.cut
    assert marked(part.got) == [(40, 55)]
    assert (len(part.got.rows), len(part.got.columns)) == (8, 6)
    assert part.got.cells[part.got.rows.index(40)][part.got.columns.index(55)] == "1.0"


def test_nan_and_infinity_are_marked_where_none_is_expected():
    (part,) = parts(torch.tensor([1.0, math.nan]), torch.tensor([math.inf, math.nan]), T)
    assert marked(part.got) == [(0, 0)]
    assert part.got.cells == [["inf", "nan"]]


def test_integers_are_compared_exactly():
    (part,) = parts(torch.tensor([2**60]), torch.tensor([2**60 + 1]), T)
    assert marked(part.got) == [(0, 0)]
    assert part.got.cells == [[str(2**60 + 1)]]


def test_arrays_of_two_shapes_have_no_marked_entries():
    (part,) = parts(torch.ones(3, 1), torch.ones(3), T)
    assert part.differs
    assert (part.expected.shape, part.got.shape) == ([3, 1], [3])
    assert marked(part.got) == marked(part.expected) == []


def test_each_part_of_a_structure_is_laid_out_under_its_name():
    expected = (Dataset((torch.ones(2, 1), torch.zeros(2)), 2), 2)
    got = (Dataset((torch.ones(2), torch.zeros(2)), 2), 2)
    named = {part.title: part.differs for part in parts(expected, got, T)}
    assert named == {
        "item 0, tensor 0 of the dataset": True,
        "item 0, tensor 1 of the dataset": False,
        "item 1": False,
    }


def test_what_is_missing_or_too_much_is_said():
    (first, second) = parts({"a": 1, "b": 2}, {"a": 1, "c": 3}, T)[1:]
    assert (first.title, first.expected, first.got, first.differs) == (
        "b",
        "2",
        "nothing",
        True,
    )
    assert (second.title, second.expected, second.got) == ("c", "nothing", "3")


def test_values_of_two_classes_are_shown_as_they_are():
    (part,) = parts(torch.ones(2), 3, T)
    assert isinstance(part.expected, Grid)
    assert part.got == "3"
    assert part.differs
    (part,) = parts(1, Foreign("evil.Int"), T)
    assert part.got == "an object of the class evil.Int"


def test_lists_of_numbers_are_arrays_of_one_row():
    (part,) = parts([1, 2, 3], [1, 5, 3], T)
    assert marked(part.got) == [(0, 1)]
    assert part.got.kind == "list"


def test_where_other_answers_are_right_too_nothing_is_marked():
    (part,) = parts(torch.ones(2), torch.zeros(2), None)
    assert not part.differs
    assert marked(part.got) == []


def test_empty_scalar_and_bfloat16_arrays_are_laid_out():
    (empty, scalar, half, none) = inputs(
        [torch.empty(0, 5), np.array(2, np.float32), torch.ones(2, dtype=torch.bfloat16), None],
        ["a", "b", "c", "d"],
    )
    assert (empty.got.shape, empty.got.cells) == ([0, 5], [])
    assert scalar.got.cells == [["2.0"]]
    assert not scalar.got.cut
    assert half.got.cells == [["1.0", "1.0"]]
    assert none.got == "None"


def test_parts_survive_storage_and_verdicts_of_earlier_versions_have_none():
    shown = Shown(["1"], "2", "3", inputs([torch.ones(2)], ["x"]), parts([1, 2], [1, 3], T))
    stored = json.loads(json.dumps(_plain(shown)))
    assert Shown.from_dict(stored) == shown
    old = Shown.from_dict({"arguments": ["1"], "expected": "2", "got": "3"})
    assert (old.inputs, old.parts) == ([], [])
    assert Part.from_dict({"title": "", "expected": None, "got": "1", "differs": False}).got == "1"


def _plain(shown):
    from dataclasses import asdict

    return asdict(shown)
