"""`etude memory`: figures for models that are not here, and what to change."""

from __future__ import annotations

import json
import sys

import pytest

from etude.cli import main


@pytest.fixture
def etude(monkeypatch, capsys):
    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["etude", "memory", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_three_methods_stand_side_by_side_with_what_to_change(etude):
    code, out, _ = etude("llama-3.2-1b", "--memory", "6GB")
    assert code == 0
    for word in ("weights", "activations", "peak", "QLoRA", "LoRA", "full fine-tuning", "fits"):
        assert word in out
    assert "full fine-tuning: change first --set adapter.kind=lora" in out


def test_json_holds_every_part_and_the_change(etude):
    code, out, _ = etude("smollm2-360m", "--memory", "2GB", "--method", "lora", "--json")
    content = json.loads(out)
    (plan,) = content["plans"]
    assert code == 0
    assert content["memory"] == 2_000_000_000
    assert plan["total"] == sum(plan["parts"].values())
    assert plan["fits"] is False
    assert plan["change"]["total"] < plan["total"]


def test_a_recipe_says_for_what(etude, tiny_llama, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(f"model: {tiny_llama()}\ndata: {{train: rows.jsonl}}\n", "utf-8")
    code, out, _ = etude("--recipe", file, "--method", "lora", "--set", "adapter.rank=2")
    assert code == 0
    assert "rank 2" in out


def test_bad_arguments_are_one_line(etude):
    for arguments, message in (
        (("no-such-model",), "unknown model 'no-such-model'"),
        ((), "name a model"),
        (("smollm2-360m", "--set", "adapter.rnk=2"), "unknown key"),
    ):
        code, _, err = etude(*arguments)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
    assert etude("smollm2-360m", "--memory", "lots")[0] == 2


def test_a_recipe_that_leaves_its_data_to_the_command_line_is_planned(etude, tiny_llama, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(f"model: {tiny_llama()}\nadapter: {{rank: 3}}\n", "utf-8")
    code, out, _ = etude("--recipe", file, "--method", "lora")
    assert code == 0
    assert "rank 3" in out
