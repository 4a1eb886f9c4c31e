"""Preparation of images: the numbers of transformers' processors, saved with a hash."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from etude.core.errors import AdapterError, ModelError
from etude.tuning.images.preparation import Preparation

STATED = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 24, "width": 20},
    "resample": 2,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}


def image(width=50, height=37):
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def read(folder, **stated):
    (folder / "preprocessor_config.json").write_text(json.dumps({**STATED, **stated}), "utf-8")
    return Preparation.read(folder, SimpleNamespace())


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"resample": 3, "do_normalize": False},
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 30},
            "do_center_crop": True,
            "crop_size": {"height": 24, "width": 24},
        },
    ],
)
@pytest.mark.parametrize("size", [(50, 37), (31, 64)])
def test_the_numbers_are_those_of_the_processors_of_transformers(tmp_path, stated, size):
    from transformers import AutoImageProcessor

    preparation = read(tmp_path, **stated)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    one = image(*size)
    theirs = processor(one, return_tensors="pt")["pixel_values"]
    ours = preparation.tensor([preparation.apply(one)])
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_what_is_written_for_transformers_reads_as_the_same(tmp_path):
    cropped = Preparation((24, 24), shortest=30, resample=3, mean=(0.4, 0.5, 0.6))
    for one in (Preparation((24, 20)), cropped):
        one.save_pretrained(tmp_path)
        assert Preparation.read(tmp_path, SimpleNamespace()) == one


def test_a_change_of_what_was_hashed_is_refused():
    stored = json.loads(json.dumps(Preparation((24, 24)).as_json()))
    assert Preparation.from_json(stored) == Preparation((24, 24))
    with pytest.raises(AdapterError, match="preparation of images"):
        Preparation.from_json({**stored, "resample": 0})
    with pytest.raises(AdapterError, match="preparation of images"):
        Preparation.from_json(None)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"size": {"shortest_edge": 30}}, "one size"),
        ({"do_resize": False}, "do_resize"),
        ({"size": {"longest_edge": 30}}, "not supported"),
        ({"do_center_crop": True, "crop_size": 30}, "larger than"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, stated, message):
    with pytest.raises(ModelError, match=message):
        read(tmp_path, **stated)


def test_a_size_of_another_side_keeps_the_proportion_of_the_crop():
    assert Preparation((224, 224), shortest=256).of_side(112).shortest == 128
    assert replace(Preparation((64, 64)), size=(40, 40)) == Preparation((64, 64)).of_side(40)


def test_an_image_counts_as_a_token_for_each_16_pixels_squared():
    assert Preparation((224, 224)).tokens == 196
    assert Preparation((28, 28)).tokens == 4
