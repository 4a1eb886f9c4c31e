"""The command line as a person meets it: help, completion, errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def in_a_process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "etude", *map(str, arguments)],
        capture_output=True,
        text=True,
        input="",
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "100"},
        timeout=300,
        check=False,
    )


@pytest.fixture
def etude(etude_command):
    return etude_command


def test_help_and_import_load_nothing_heavy():
    code = (
        "import sys, etude, etude.cli\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow', 'datasets', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def commands(group=None, path=()):
    """Return all commands, hidden ones too, by the words that are typed."""
    import typer.main

    from etude.cli import app

    group = typer.main.get_command(app) if group is None else group
    inner = getattr(group, "commands", {})
    found = {} if inner else {path: group}
    for name, command in inner.items():
        found |= commands(command, (*path, name))
    return found


def test_every_verb_has_an_example_of_itself_with_options_that_it_has():
    for path, command in commands().items():
        line = "etude " + " ".join(path)
        examples = [code for code in (command.epilog or "").split("`") if line in code]
        assert examples, f"{line} has no example"
        there = {
            name for option in command.params for name in (*option.opts, *option.secondary_opts)
        }
        for word in " ".join(examples).split():
            if word.startswith("--"):
                assert word.partition("=")[0] in there, f"{line} has no {word}"


@pytest.mark.parametrize("verb", ["tune", "papers sync", "practice judge", "recipe list"])
def test_help_is_printed(verb):
    done = in_a_process(*verb.split(), "--help")
    assert done.returncode == 0
    assert f"etude {verb}" in done.stdout.replace("Usage: etude", "")


def test_the_shipped_recipes_are_valid_and_open_with_their_launch_line():
    from etude import Recipe

    recipes = sorted((REPOSITORY / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        recipe = Recipe.read(path, data="rows.jsonl")
        assert recipe.name == path.stem
        assert f"etude tune {path.stem}" in path.read_text("utf-8").split("\nname:")[0]


def test_completion_offers_recipe_keys():
    env = {
        "_ETUDE_COMPLETE": "complete_bash",
        "COMP_WORDS": "etude tune r.yaml --set adapter.",
        "COMP_CWORD": "4",
    }
    code = "import sys; sys.argv = ['etude']; from etude.cli import app; app(prog_name='etude')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )
    assert "adapter.rank=" in done.stdout
    assert "train.lr=" not in done.stdout


def refused(done, *words):
    """Check for one clear line and exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture
def recipe_file(tiny_llama, tmp_path):
    """A recipe of a tiny model on the rows that a test writes."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"prompt": f"number {i}", "completion": f"It is {i}."}) + "\n"
            for i in range(24)
        ),
        "utf-8",
    )
    fields = {
        "name": "tiny",
        "model": {"id": str(tiny_llama()), "dtype": "float32"},
        "adapter": {"rank": 4},
        "quant": {"kind": "none"},
        "data": {"train": str(rows), "eval_fraction": 0.2, "max_length": 128},
        "train": {"epochs": 1, "batch_samples": 8, "micro_tokens": 128, "threads": 1},
        "eval": {"generate": 2, "max_new_tokens": 4},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields), "utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["rows.jsonl"]),
        ("", ["rows.jsonl"]),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a", \n', ["rows.jsonl:2"]),
        (
            "".join(f'{{"prompt": "{i}", "completion": ""}}\n' for i in range(9)),
            ["rows.jsonl:", "answer is empty"],
        ),
        ('{"frage": "a", "antwort": "b"}\n', ["frage"]),
    ],
    ids=["missing", "empty", "no JSON", "nothing trained", "no column"],
)
def test_bad_data_is_one_line_and_exit_code_2(etude, recipe_file, tmp_path, content, words):
    rows = tmp_path / "rows.jsonl"
    rows.unlink()
    if content is not None:
        rows.write_text(content, "utf-8")
    refused(etude("tune", recipe_file, "--runs", tmp_path / "runs", "--quiet"), *words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("adapter.rnak=3", ["adapter.rnak", "did you mean 'adapter.rank'"]),
        ("adapter.rank=many", ["adapter.rank", "'many'"]),
        ("adapter.rank=40", ["rank 40", "k_proj"]),
        ("adapter.target_modules=q_porj", ["q_porj", "q_proj"]),
        ("model=smollm3-135m", ["smollm3-135m", "smollm2-135m"]),
        ("nonsense", ["key=value"]),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(etude, recipe_file, tmp_path, override, words):
    done = etude("tune", recipe_file, "--set", override, "--runs", tmp_path / "runs", "--quiet")
    refused(done, *words)


def test_a_run_is_chatted_with_evaluated_merged_and_its_damage_refused(
    etude, recipe_file, tmp_path
):
    runs = tmp_path / "runs"
    done = in_a_process("tune", recipe_file, "--runs", runs, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    latest = runs / "latest"

    done = etude("chat", latest, "--max-new-tokens", "4", stdin="number 3")
    assert done.returncode == 0, done.stderr
    assert "--- base" in done.stdout
    assert "--- tuned" in done.stdout
    greedy = done.stdout
    assert etude("chat", latest, "--max-new-tokens", "4", stdin="number 3").stdout == greedy
    sampled = [
        etude("chat", latest, "--max-new-tokens", "16", *words, stdin="number 3").stdout
        for words in (["--temperature", "2", "--seed", seed] for seed in ("1", "1", "2"))
    ]
    assert sampled[0] == sampled[1] != sampled[2]

    done = etude("eval", latest, "--base", "--json")
    results = json.loads(done.stdout)
    assert results["tuned"]["loss"] == pytest.approx(summary["eval_loss"], rel=1e-6)
    assert results["base"]["loss"] == pytest.approx(summary["eval_loss_before"], rel=1e-6)

    done = etude("eval", latest, "--data", tmp_path / "rows.jsonl", "--json")
    assert json.loads(done.stdout)["tuned"]["samples"] == 24

    merged = tmp_path / "merged"
    done = etude("merge", latest, "--output", merged)
    assert done.returncode == 0, done.stderr
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(merged).num_parameters() > 0

    refused(etude("tune", "--resume", latest), "finished")
    weights = latest.resolve() / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(in_a_process("chat", latest), "adapter")


def test_an_adapter_of_another_model_is_refused(etude, recipe_file, tiny_llama, tmp_path):
    runs = tmp_path / "runs"
    assert etude("tune", recipe_file, "--runs", runs, "--quiet").returncode == 0
    latest = (runs / "latest").resolve()
    fields = yaml.safe_load((latest / "recipe.yaml").read_text("utf-8"))
    fields["model"]["id"] = str(tiny_llama(seed=7))
    (latest / "recipe.yaml").write_text(yaml.safe_dump(fields), "utf-8")
    refused(etude("chat", latest, stdin="number 3"), "was trained on")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plan llama-3.1-8b", ["etude plan is now etude memory"]),
        ("papers forget 2604.01234", ["etude papers forget is now etude papers unlike"]),
        ("tune docstrings --anyway", ["--anyway", "--ignore-memory"]),
        ("papers search YOLO --most=3", ["--most", "--limit"]),
        ("papers digest --again --mail", ["--again", "--resend"]),
        ("practice judge --demand namespaces", ["--demand", "--require"]),
    ],
)
def test_an_old_name_is_answered_with_the_new_one(line, words):
    refused(in_a_process(*line.split()), *words)


def test_every_new_name_is_a_command_or_an_option_and_no_old_one_is():
    import typer.main

    from etude.cli import app, renamed

    def command(path):
        found = typer.main.get_command(app)
        for name in path:
            found = getattr(found, "commands", {}).get(name)
        return found

    for old, new in renamed.COMMANDS.items():
        assert command(old) is None
        assert command(new.split()) is not None
    for path, options in renamed.OPTIONS.items():
        there = {name for option in command(path).params for name in option.opts}
        assert set(options.values()) <= there
        assert not set(options) & there


def test_words_after_two_hyphens_are_no_options():
    from etude.cli.renamed import refuse_old_names

    refuse_old_names(["papers", "search", "--", "--most"])
    refuse_old_names(["tune", "--set", "name=plan"])


def test_asking_for_a_run_that_is_not_there_names_those_that_are(etude, tmp_path):
    refused(etude("chat", "latest", "--runs", tmp_path, stdin="hello"), "no runs")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("--debug", "models", "show", "xyzzy"), {}),
        (("models", "show", "xyzzy"), {"ETUDE_DEBUG": "1"}),
    ],
)
def test_debug_shows_where_an_error_comes_from(etude_command, arguments, environment) -> None:
    shown = etude_command(*arguments, **environment)
    assert shown.returncode == 2
    assert shown.stderr.startswith("Traceback")
    assert shown.stderr.splitlines()[-1].startswith("error: unknown model 'xyzzy'")
    plain = etude_command("models", "show", "xyzzy")
    assert plain.stderr.startswith("error: unknown model 'xyzzy'")
