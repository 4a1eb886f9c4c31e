"""`etude predict`, with tiny runs of both tasks."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from etude.cli import main
from etude.tuning.config.recipe import Recipe
from etude.tuning.pipeline import tune


class Answer(NamedTuple):
    code: int
    out: list[Any]
    err: str


def recipe(model: Path, folder: Path, **more: Any) -> Recipe:
    """A recipe for one step on rows of prompt and completion, or of text and label."""
    rows = [
        {"prompt": f"open {n}", "completion": f"Close {n}.", "text": f"{w} {n}", "label": w}
        for n, w in enumerate(["good", "bad"] * 8)
    ]
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    fields: dict[str, Any] = {
        "model": {"id": str(model), "dtype": "float32"},
        "adapter": {"rank": 2},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "eval_fraction": 0.3, "max_length": 64},
        "train": {"max_steps": 1, "batch_samples": 4, "micro_tokens": 128, "threads": 1},
        "eval": {"generate": 0, "max_new_tokens": 3},
    }
    return Recipe.parse({**fields, **more})


@pytest.fixture(scope="module")
def runs(tiny_llama, tmp_path_factory) -> Path:
    """The folder of two runs, `chat-…` and `class-…`."""
    folder = tmp_path_factory.mktemp("predict")
    model = tiny_llama(layers=1, tied=False, seed=3)  # its answers are not empty
    tune(recipe(model, folder, name="chat"), base=folder / "runs")
    tune(recipe(model, folder, name="class", task="text-classification"), base=folder / "runs")
    return folder / "runs"


@pytest.fixture
def predict(runs, monkeypatch, capsys, tmp_path) -> Callable[..., Answer]:
    """Call the verb in `tmp_path`, with `typed` on standard input."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, typed: str | bytes = "") -> Answer:
        raw = typed if isinstance(typed, bytes) else typed.encode()
        monkeypatch.setattr(sys, "argv", ["etude", "predict", *arguments, "--runs", str(runs)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), "ascii"))
        code: Any = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return Answer(int(code or 0), [json.loads(line) for line in out.splitlines()], err)

    return call


def run_named(runs: Path, name: str) -> str:
    return next(path.name for path in runs.iterdir() if path.name.startswith(name))


def test_answers_come_one_a_line_in_order(predict, runs, tmp_path):
    from etude.tuning.predictor import load

    run = run_named(runs, "chat")
    texts = [f"open {n}" + " more" * (n % 5) for n in range(70)]  # more than a batch
    (tmp_path / "questions.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    answered = predict(run, "questions.txt")
    assert answered.code == 0 and [one["input"] for one in answered.out] == texts
    predictor = load(run, base=runs)
    assert [one["answer"] for one in answered.out[:3]] == [
        one.text for one in predictor.predict(texts[:3])
    ]
    typed = predict(run, typed="\n".join(texts[:2]))
    assert typed.out == answered.out[:2] == predict(run, "-", typed="\n".join(texts[:2])).out
    longer = predict(run, "--max-new-tokens", "12", typed=texts[0])
    assert len(longer.out[0]["answer"]) > len(answered.out[0]["answer"])


def test_the_system_message_of_training_is_before_each_input(runs, tiny_llama, tmp_path):
    from etude.tuning.data.schema import Message
    from etude.tuning.predictor import load
    from etude.tuning.tasks.chat import as_trained

    spec = load(run_named(runs, "chat"), base=runs).encoder.spec
    told = spec.model_copy(update={"system": "Answer in verse."})
    roles = [m.role for m in as_trained((Message("user", "open"),), told, "here").messages]
    assert roles == ["system", "user", "assistant"]
    asked = spec.model_copy(update={"kind": "docstrings"})
    sample = as_trained((Message("user", "def f(): ..."),), asked, "here")
    assert sample.messages[0].content.startswith("```python\ndef f")


def test_classes_come_with_the_probability_of_each(predict, runs, tmp_path):
    run = run_named(runs, "class")
    (tmp_path / "reviews.csv").write_text('text,stars\n"good, long",5\nbad,1\n', "utf-8")
    found = predict(run, "reviews.csv")
    assert [one["input"] for one in found.out] == ["good, long", "bad"]
    for one in found.out:
        assert set(one["probabilities"]) == {"good", "bad"}
        assert one["probabilities"][one["label"]] == max(one["probabilities"].values())
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    rows = [{"title": "A", "review": "good"}, {"title": "B", "review": "bad"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    named = predict(run, "rows.jsonl", "--column", "{title}: {review}")
    assert [one["input"] for one in named.out] == ["A: good", "B: bad"]


@pytest.mark.parametrize(
    ("name", "content", "arguments", "says"),
    [
        ("q.txt", "\n\n", (), "q.txt holds no inputs"),
        ("q.jsonl", "", (), "q.jsonl is empty"),
        (
            "q.csv",
            "txt,stars\ngood,5\n",
            (),
            "no column 'text' (data.text of the run, or --column) "
            "(did you mean 'txt'?); this row has 'stars', 'txt'",
        ),
        ("q.csv", "text\ngood\n", ("--column", "txt"), "no column 'txt' (--column) (did you mean"),
        ("q.txt", "good\n", ("--column", "text"), "--column is for a file of rows"),
        ("q.jsonl", '{"text": "good"}\n{"text": " "}\n', (), "q.jsonl:2: the input is empty"),
        ("q.jsonl", '{"text": "good"}\n{"text"\n', (), "q.jsonl:2 is not JSON"),
    ],
)
def test_inputs_that_cannot_be_used_end_before_anything_is_predicted(
    predict, runs, tmp_path, name, content, arguments, says
):
    (tmp_path / name).write_text(content, "utf-8")
    answer = predict(run_named(runs, "class"), name, *arguments)
    assert answer.code == 2 and answer.out == [] and says in answer.err
    assert answer.err.count("\n") == 1


def test_other_errors_name_what_is_wrong(predict, runs, tmp_path):
    run = run_named(runs, "class")
    (tmp_path / "reviews.txt").write_text("good\n", "utf-8")
    for arguments, typed, says in (
        ((run,), "", "standard input is empty"),
        ((run,), b"good\n\xff\n", "standard input is not UTF-8: byte 0xff in line 2"),
        ((run, "review.txt"), "", "no data file at review.txt (did you mean 'reviews.txt'?)"),
        ((run, "--column", "text"), "good", "--column is for a file of rows"),
        (("clas-2026",), "good", "clas-2026"),
    ):
        answer = predict(*arguments, typed=typed)
        assert answer.code == 2 and says in answer.err, answer.err
