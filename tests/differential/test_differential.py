"""Adapters by a seed against transformers and PEFT in float64; `make fuzz` runs thousands.

Of every configuration: logits, loss, every gradient, three optimiser steps, evaluation, greedy
answers, files both ways, the merge, and which layers ran fused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from comparison import Failure, compare, failure_of, shrunk
from configurations import FIRST_OF_MIXTURES, Configuration, draw

SEEDS = range(40)
WITH_TOKENS_AND_EXPERTS = range(FIRST_OF_MIXTURES, FIRST_OF_MIXTURES + 8)
CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))


@pytest.mark.parametrize("seed", [*SEEDS, *WITH_TOKENS_AND_EXPERTS])
def test_a_configuration_by_its_seed(seed):
    compare(draw(seed))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_what_once_failed(case):
    compare(Configuration.from_json(case.read_text("utf-8")))


def test_the_seeds_have_every_option():
    drawn = [draw(seed) for seed in SEEDS]
    for option, values in {
        "kind": {"lora", "dora", "vera", "adalora", "ia3"},
        "written_by": {"etude", "peft"},
        "dtype": {"float32", "bfloat16"},
        "quant": {"none", "nf4", "int8"},
        "tied": {True, False},
        "packed": {True, False},
    }.items():
        assert values <= {getattr(one, option) for one in drawn}
    assert max(Counter(one.architecture for one in drawn).values()) < len(drawn) / 2


def test_a_configuration_is_written_and_read():
    one = draw(7)
    assert Configuration.from_json(one.to_json()) == one
    assert Configuration.from_json(Configuration().to_json()) == Configuration()


def test_a_wrong_number_is_found_and_the_configuration_made_small(monkeypatch):
    from etude.tuning.adapters.kinds.lora import LoRA

    inner = LoRA.__init__

    def wrong(self, *given, **named):
        inner(self, *given, **named)
        if named.get("rslora"):
            self.scaling *= 1.01

    monkeypatch.setattr(LoRA, "__init__", wrong)
    large = replace(
        Configuration(), seed=5, rslora=True, targets="all-linear", rank=8, saved=("norm",)
    )
    failure = failure_of(large)
    assert failure is not None
    assert failure.startswith(Failure.__name__)
    assert shrunk(large, Failure.__name__) == Configuration(rslora=True)
