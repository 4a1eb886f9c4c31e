import math

import numpy as np
import pytest
import torch

from etude.practice.compare import Tolerance, compare
from etude.practice.protocol import Dataset, Foreign, decode, encode

T = Tolerance(rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("got", "expected", "kind"),
    [
        (1, 1.0, "type"),
        (True, 1, "type"),
        (np.float64(1.0), 1.0, "type"),
        ([1], (1,), "type"),
        (Foreign("evil.Int"), 1, "type"),
        (torch.ones(1), torch.nn.Parameter(torch.ones(1)), "type"),
        (torch.ones(1), torch.ones(3), "shape"),
        (torch.tensor(1.0), torch.ones(3), "shape"),
        (np.ones(1), np.ones((1, 1)), "shape"),
        ([1.0], [1.0, 2.0], "shape"),
        ({"a": 1}, {"a": 1, "b": 2}, "shape"),
        ({"a": 1, "c": 3}, {"a": 1}, "shape"),
        (torch.Size([1]), torch.Size([2]), "shape"),
        (torch.ones(3, dtype=torch.float64), torch.ones(3), "dtype"),
        (np.ones(3, np.float32), np.ones(3), "dtype"),
        (torch.tensor([math.nan]), torch.tensor([1.0]), "not finite"),
        (torch.tensor([math.inf]), torch.tensor([-math.inf]), "not finite"),
        (math.nan, 1.0, "not finite"),
        (torch.tensor([1.001]), torch.tensor([1.0]), "values"),
        (torch.tensor([2**60 + 1]), torch.tensor([2**60]), "values"),
        (1.001, 1.0, "values"),
        ("a", "b", "values"),
        (None, 1, "type"),
        (Dataset((torch.ones(2),), 2), Dataset((torch.ones(2), torch.ones(2)), 2), "shape"),
        (Dataset((torch.ones(2),), 3), Dataset((torch.ones(2),), 2), "values"),
    ],
)
def test_what_is_wrong_is_said_in_the_order_type_shape_dtype_finite_values(got, expected, kind):
    mismatch = compare(got, expected, T)
    assert mismatch is not None and mismatch.kind == kind
    assert "\n" not in mismatch.says


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        1.5,
        math.nan,
        -math.inf,
        "text",
        [1, (2.0, "x")],
        {"a": [torch.ones(2)]},
        torch.Size([2]),
        torch.tensor([math.nan, math.inf, -math.inf, 0.0]),
        torch.arange(3),
        np.eye(2),
        torch.empty(0, 3),
        torch.float16,
        np.float32(2.5),
        torch.tensor([1 + 2j]),
        torch.tensor([True, False]),
    ],
)
def test_every_value_is_right_for_itself(value):
    assert compare(decode(encode(value)), value, T) is None


def test_the_bound_is_the_one_that_is_documented():
    expected = torch.tensor([100.0], dtype=torch.float64)
    assert compare(expected + 0.00999, expected, T) is None
    assert compare(expected + 0.01001, expected, T) is not None


def test_a_hidden_test_is_told_without_values():
    mismatch = compare(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 7.25]), T)
    assert "7.25" in mismatch.says and "7.25" not in mismatch.brief
