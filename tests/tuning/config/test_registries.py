"""The names that a recipe allows are those of the registries, and reading one stays light."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from etude.tuning.config.sections.base import Section
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.train import NOT_TAKEN, TrainSpec
from etude.tuning.data.formats.registry import FORMATS
from etude.tuning.data.sources.registry import SOURCES
from etude.tuning.optim.registry import OPTIMIZERS
from etude.tuning.optim.schedules import SCHEDULES


def allowed(section: type[Section], key: str) -> set[str]:
    """Return the names that a key takes."""
    return set(get_args(section.model_fields[key].annotation))


@pytest.mark.parametrize(
    ("section", "key", "registered"),
    [
        (DataSpec, "format", {"auto", *FORMATS}),
        (DataSpec, "kind", {*SOURCES}),
        (TrainSpec, "optimizer", {*OPTIMIZERS}),
        (TrainSpec, "lr_scheduler", {*SCHEDULES}),
    ],
    ids=["formats", "sources", "optimisers", "schedules"],
)
def test_a_recipe_allows_what_is_registered_and_nothing_else(section, key, registered):
    assert allowed(section, key) == registered


def test_an_optimiser_refuses_options_that_there_are():
    assert set(NOT_TAKEN) <= {*OPTIMIZERS}
    for options in NOT_TAKEN.values():
        assert set(options) <= set(TrainSpec.model_fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"optimizer": "lion", "paged": True},
            "train.paged does not apply to train.optimizer: lion, which keeps its state in memory",
        ),
        (
            {"optimizer": "adafactor", "beta1": 0.0, "beta2": 0.9},
            "train.beta1 and train.beta2 do not apply to train.optimizer: adafactor, which has no",
        ),
    ],
)
def test_an_option_that_does_not_apply_is_refused_with_the_reason(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainSpec(**fields)


def test_options_that_apply_are_taken():
    assert TrainSpec(optimizer="adamw8bit", paged=True, beta1=0.8).paged
    assert TrainSpec(optimizer="lion", beta1=0.95, beta2=0.98).beta2 == 0.98
    assert TrainSpec(optimizer="adafactor").optimizer == "adafactor"


def test_reading_a_recipe_and_the_registries_of_data_load_no_torch():
    code = (
        "import sys\n"
        "from etude.tuning.config.recipe import Recipe\n"
        "Recipe.parse({'model': 'm', 'data': {'train': 'a'}, 'train': {'optimizer': 'lion'}})\n"
        "from etude.tuning.data.formats.registry import FORMATS\n"
        "from etude.tuning.data.sources.registry import READERS, SOURCES\n"
        "from etude.tuning.optim.schedules import SCHEDULES\n"
        "assert len(FORMATS) > 6 and len(SOURCES) > 2 and len(READERS) > 6 and len(SCHEDULES) > 2\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
