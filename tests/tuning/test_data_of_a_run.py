"""What a run keeps of its data: where they are, what was not read, the system message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from etude.core.errors import DataError
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.schema import Message
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.settle import settled

pytestmark = pytest.mark.integration

SHORT = {"train": {"max_steps": 2, "save_every": 1}, "eval": {"generate": 0}}


def with_column(file: Path, **columns: object) -> Path:
    """Rewrite a file of rows, each with further columns."""
    rows = [json.loads(line) | columns for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def as_stopped(run: RunFolder) -> None:
    """Make a finished run one that was stopped after its first step."""
    for checkpoint in sorted(run.checkpoints.glob("step-*.pt"))[1:]:
        checkpoint.unlink()
    run.set_state("stopped", "as if killed")


def test_a_run_of_relative_paths_resumes_from_another_folder(
    tiny_recipe, tmp_path, etude_command, monkeypatch
):
    fields = tiny_recipe(**SHORT)
    (tmp_path / "model").symlink_to(fields["model"]["id"])
    fields["data"]["train"] = "rows.jsonl"
    fields["model"]["id"] = "./model"
    (tmp_path / "recipe.yaml").write_text(json.dumps(fields))
    done = etude_command("tune", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = RunFolder.open((tmp_path / "runs" / "latest").resolve())
    kept = Recipe.read_run(run.recipe)
    assert kept.data.train == str(tmp_path / "rows.jsonl")
    assert kept.model.id == str(tmp_path / "model")
    losses = (run.path / "metrics.jsonl").read_text()
    as_stopped(run)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = etude_command("tune", "--resume", run.path, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    again = [json.loads(line)["loss"] for line in (run.path / "metrics.jsonl").open()]
    assert again == [json.loads(line)["loss"] for line in losses.splitlines()]


def test_every_path_of_a_recipe_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    lines = {"prompts": "a.de", "completions": "~/a.en"}
    data = {"train": [{"path": "a.jsonl", "weight": 2}, {**lines, "weight": 1}], "eval": "b.jsonl"}
    kept = settled(Recipe.parse({"data": data}), tmp_path).data
    assert kept.train_files[0].path == str(tmp_path / "a.jsonl")
    assert kept.train_files[1].prompts == str(tmp_path / "a.de")
    assert kept.train_files[1].completions == str(Path.home() / "a.en")
    assert kept.eval == str(tmp_path / "b.jsonl")
    assert Recipe.parse(Recipe.parse({"data": data}).model_dump()).data.train_files[0].weight == 2
    # A data set of the hub, unless it is a folder here; packages, unless installed.
    (tmp_path / "embedder").mkdir()
    for named, expected in (
        ("embedder", str(tmp_path / "embedder")),
        ("minilm", "minilm"),
        ("bm25", "bm25"),
        ("owner/embedder", "owner/embedder"),
    ):
        ranked = {"task": "reranking", "data": {"train": "a.jsonl", "first_stage": named}}
        assert settled(Recipe.parse(ranked), tmp_path).data.first_stage == expected
    hub = settled(Recipe.parse({"data": {"kind": "hub", "train": "owner/name"}}), tmp_path).data
    assert hub.train == "owner/name"
    hub = settled(Recipe.parse({"data": {"kind": "hub", "train": "here"}}), tmp_path).data
    assert hub.train == str(tmp_path / "here")
    packages = {"kind": "docstrings", "packages": ["json", "here"], "eval_packages": ["./here"]}
    told = settled(Recipe.parse({"data": packages}), tmp_path).data
    assert told.packages == ["json", str(tmp_path / "here")]
    assert told.eval_packages == [str(tmp_path / "here")]


def test_standard_input_is_kept_with_the_run_and_read_again_by_resume(
    tiny_recipe, tmp_path, etude_command
):
    fields = tiny_recipe(**SHORT)
    rows = (tmp_path / "rows.jsonl").read_text()
    fields["data"]["train"] = "none.jsonl"
    (tmp_path / "recipe.yaml").write_text(json.dumps(fields))
    done = etude_command("tune", "recipe.yaml", "--data", "-", cwd=tmp_path, stdin=rows)
    assert done.returncode == 0, done.stderr
    run = RunFolder.open((tmp_path / "runs" / "latest").resolve())
    assert (run.path / "data" / "stdin.jsonl").read_text() == rows
    as_stopped(run)
    done = etude_command("tune", "--resume", run.path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = etude_command("tune", "recipe.yaml", "--data", "-", cwd=tmp_path)
    assert done.returncode == 2
    assert "standard input is empty" in done.stderr


@pytest.mark.parametrize("verb", ["inspect", "check"])
def test_standard_input_is_looked_at_like_a_file(tiny_recipe, tmp_path, etude_command, verb):
    model = tiny_recipe()["model"]["id"]
    rows = (tmp_path / "rows.jsonl").read_text()
    home = tmp_path / "home"
    done = etude_command(
        "data", verb, "-", "--model", model, cwd=tmp_path, stdin=rows, ETUDE_HOME=str(home)
    )
    assert done.returncode in (0, 1), done.stderr
    assert ("stdin.jsonl:" if verb == "inspect" else "train rows") in done.stdout


def test_the_report_says_what_was_not_read(tiny_recipe, tmp_path):
    fields = tiny_recipe(**SHORT)
    with_column(Path(fields["data"]["train"]), source="web")
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    notes = json.loads((run.folder / "data.json").read_text())["notes"]
    assert any(note.startswith("not read: column 'source' (all ") for note in notes)
    assert "not read: column " in (run.folder / "report.html").read_text()


def test_the_system_message_of_all_rows_is_that_of_the_conversation(
    tiny_recipe, tmp_path, etude_command
):
    fields = tiny_recipe(**SHORT)
    with_column(Path(fields["data"]["train"]), system="Answer like a sailor.")
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    tuned = load(run.folder)
    assert tuned.system == "Answer like a sailor."
    asked: list[str] = []
    real = tuned.encoder.prompt_ids

    def listening(sample):
        ids = real(sample)
        asked.append(tuned.loaded.tokenizer.decode(ids))
        return ids

    tuned.encoder.prompt_ids = listening
    by_text = tuned.reply("Hello?", max_new_tokens=4)
    # Plain data, as every other library takes.
    plain = [{"role": "user", "content": "Hello?"}]
    assert tuned.reply(plain, max_new_tokens=4) == by_text
    assert tuned.reply([Message("user", "Hello?")], max_new_tokens=4) == by_text
    assert tuned.predict("Hello?")[0].text == tuned.predict(["Hello?"])[0].text
    assert all("system\nAnswer like a sailor.<|im_end|>" in text for text in asked)
    own = [{"role": "system", "content": "Be a judge."}, *plain]
    tuned.reply(own, max_new_tokens=1)
    assert "Be a judge." in asked[-1] and "sailor" not in asked[-1]
    with pytest.raises(DataError, match=r"message 2 has no content; it has 'role'"):
        tuned.reply([*plain, {"role": "assistant"}])
    with pytest.raises(DataError, match="message 1: unknown role 'pilot'"):
        tuned.reply([{"role": "pilot", "content": "x"}])
    assert tuned.with_system("Other.").system == "Other."
    # As the command does it.
    replies = {
        text: etude_command(
            "chat", run.folder, "--tuned-only", "--max-new-tokens", 6, *option,
            stdin="Hello?", cwd=tmp_path,
        ).stdout.strip()
        for text, option in (
            ("Answer like a sailor.", []), ("A judge.", ["--system", "A judge."]),
            (None, ["--system", ""]),
        )
    }  # fmt: skip
    for text, said in replies.items():
        assert said == load(run.folder).with_system(text).reply("Hello?", max_new_tokens=6)


def test_rows_with_several_system_messages_leave_the_choice_to_the_person(tiny_recipe, tmp_path):
    fields = tiny_recipe(**SHORT)
    file = with_column(Path(fields["data"]["train"]), system="One.")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[::2]:
        row["system"] = "Two."
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    record = json.loads((run.folder / "data.json").read_text())
    assert record["system"] is None
    assert any("different system messages" in note for note in record["notes"])
    assert load(run.folder).system is None


def test_samples_show_the_question_before_the_last_answer(tiny_recipe, tmp_path):
    fields = tiny_recipe(**{**SHORT, "eval": {"generate": 1, "max_new_tokens": 2}})
    file = Path(fields["data"]["train"])
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Question {n}?"},
                {"role": "assistant", "content": f"Reply {n}."},
                {"role": "user", "content": "Thanks."},
            ]
        }
        for n in range(12)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    (line,) = (run.folder / "samples.jsonl").read_text().splitlines()
    record = json.loads(line)
    number = record["reference"].removeprefix("Reply ").removesuffix(".")
    assert record["prompt"] == f"Question {number}?"


def test_labels_of_one_and_zero_are_verdicts_where_the_objective_is_kto():
    kto = Recipe.parse({"objective": {"kind": "kto"}, "data": {"train": "x"}})
    assert kto.data.format == "unpaired_preference"
    assert Recipe.parse({"data": {"train": "x"}}).data.format == "auto"
    named = {"objective": {"kind": "kto"}, "data": {"train": "x", "format": "messages"}}
    assert Recipe.parse(named).data.format == "messages"


def test_a_run_without_training_data_in_it_still_answers(tiny_recipe, tmp_path):
    # As runs of earlier versions, whose data.json says nothing of a system message.
    run = tune(Recipe.parse(tiny_recipe(**SHORT)), base=tmp_path / "runs")
    record = json.loads((run.folder / "data.json").read_text())
    del record["system"]
    (run.folder / "data.json").write_text(json.dumps(record))
    assert load(run.folder).system is None
    moved = tmp_path / "moved"
    shutil.copytree(run.folder, moved)
    (moved / "data.json").unlink()
    assert load(moved).system is None
