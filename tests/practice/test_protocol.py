import contextlib
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from etude.practice.protocol import LENGTHS, Dataset, Foreign, MalformedError, decode, encode

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(one, other):
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (
            math.isnan(one) and math.isnan(other)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other


@given(PLAIN)
def test_plain_values_come_back_as_they_were(value):
    if "\ud800" <= str(value) <= "\udfff":
        return
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.complex64]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3)])
def test_tensors_keep_shape_type_and_bits(dtype, shape):
    value = torch.randint(0, 2, shape).to(dtype)
    back = decode(encode(value))
    assert back.dtype == dtype and back.shape == value.shape and torch.equal(back, value)


def test_a_transposed_view_arrives_as_one():
    value = torch.arange(6.0).reshape(2, 3).T
    back = decode(encode(value))
    assert torch.equal(back, value) and back.stride() == value.stride()


def test_an_expanded_tensor_arrives_with_its_values():
    value = torch.ones(1, 3).expand(4, 3)
    assert torch.equal(decode(encode(value)), value)


def test_a_leaf_that_wants_gradients_wants_them_there():
    assert decode(encode(torch.ones(2, requires_grad=True))).requires_grad
    assert isinstance(decode(encode(torch.nn.Parameter(torch.ones(2)))), torch.nn.Parameter)


def test_numpy_values_keep_their_kind():
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    back = decode(encode([array, np.float32(1.5)]))
    assert (back[0] == array).all() and back[0].dtype == np.int32
    assert type(back[1]) is np.float32 and back[1] == 1.5


def test_a_dataset_is_its_tensors_and_length():
    back = decode(encode(TensorDataset(torch.ones(3, 2), torch.zeros(3))))
    assert isinstance(back, Dataset) and back.length == 3 and len(back.tensors) == 2


class Liar(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


def test_a_subclass_arrives_as_a_name_only():
    back = decode(encode([Liar(3), torch.zeros(1).as_subclass(type("Mine", (torch.Tensor,), {}))]))
    assert all(isinstance(item, Foreign) for item in back)
    assert back[0] != 3


def test_an_answer_that_contains_itself_ends():
    answer = []
    answer.append(answer)
    assert isinstance(decode(encode(answer)), list)


def frame(header, body=b""):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return LENGTHS.pack(len(content), len(body)) + content + body


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\0" * 5,
        LENGTHS.pack(1, 2**63),
        frame(b"["),
        frame(b"[" * 100_000 + b"]" * 100_000),
        frame({"t": "tensor", "d": "float32", "s": [10**9, 10**9], "at": 0, "n": 4}, b"\0" * 4),
        frame({"t": "tensor", "d": "float32", "s": [-1, -1], "at": 0, "n": 4}, b"\0" * 4),
        frame({"t": "tensor", "d": "float32", "s": [1], "at": 2, "n": 4}, b"\0" * 4),
        frame({"t": "tensor", "d": "os.system", "s": [1], "at": 0, "n": 4}, b"\0" * 4),
        frame({"t": "tensor", "d": "float32", "s": [2**63], "at": 0, "n": 4}, b"\0" * 4),
        frame({"t": "array", "d": "object", "s": [1], "at": 0, "n": 8}, b"\0" * 8),
        frame({"t": "__class__"}),
        frame({"t": "value", "v": 1}),
        frame({"t": ["tensor"]}),
        frame({"t": "int", "v": "9" * 5000}),
        frame({"t": "dict", "v": [[[], 1]]}),
        frame({"t": "dict", "v": [1]}),
        frame({"t": "set", "v": [[1]]}),
        frame({"t": "size", "v": [-1]}),
        frame({"t": "dataset", "v": [1], "n": 1}),
        frame({"t": "scalar", "v": {"t": "none"}}),
        frame({"t": "float", "v": "1e400x"}),
        frame({}),
        frame(3.5),
    ],
)
def test_hostile_bytes_are_refused(bad):
    with pytest.raises(MalformedError):
        decode(bad)


@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_frames_give_a_value_or_are_refused(junk, place, byte):
    good = bytearray(encode([torch.ones(2, 3), {"a": (1.5, "x")}, np.zeros(3)]))
    good[place % len(good)] = byte
    for content in (bytes(good), junk):
        with contextlib.suppress(MalformedError):
            decode(content)
