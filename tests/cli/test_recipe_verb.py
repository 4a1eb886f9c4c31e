"""`etude recipe`: keys, show, check, schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from etude.cli import main
from etude.tuning.config.recipe import Recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))


@pytest.fixture
def etude(monkeypatch, capsys):
    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["etude", "recipe", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_keys_are_found_by_name_and_by_meaning(etude):
    code, out, _ = etude("keys", "warmup")
    assert code == 0
    assert "train.warmup_ratio" in out
    assert "adapter.adalora.warmup" in out
    assert "train.loraplus_lr_ratio" in etude("keys", "LoRA+")[1]
    code, _, err = etude("keys", "florp")
    assert code == 2
    assert "no key has 'florp'" in err


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_what_is_shown_is_the_same_recipe(etude, file):
    code, out, _ = etude("show", file)
    assert code == 0
    assert Recipe.parse(yaml.safe_load(out)) == Recipe.read(file)
    code, out, _ = etude("show", file, "--changed")
    assert code == 0
    assert "# default" in out


def test_recipes_are_sound_or_their_faults_named(etude, tmp_path):
    code, out, _ = etude("check", *RECIPES)
    assert code == 0
    assert out.count("sound") == len(RECIPES)
    bad = tmp_path / "bad.yaml"
    bad.write_text("model: smollm2-135m\nadapter: {rnk: 8}\ntrain: {lr: -1}\n")
    code, _, err = etude("check", RECIPES[0], bad)
    assert code == 2
    assert "'adapter.rnk' (did you mean 'adapter.rank'?)" in err
    assert "train.lr" in err


def test_the_schema_is_json(etude):
    assert "properties" in json.loads(etude("schema")[1])
