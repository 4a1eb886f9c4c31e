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


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_json_rows_of_standard_input_are_read_as_those_of_a_file(predict, runs, tmp_path):
    run = run_named(runs, "class")
    rows = [{"id": n, "text": f"good {n}" + " long" * (n % 4)} for n in range(70)]
    (tmp_path / "rows.jsonl").write_text(lines_of(rows), "utf-8")
    filed = predict(run, "rows.jsonl")
    typed = predict(run, "-", typed=lines_of(rows))
    assert typed.code == 0 and typed.out == filed.out
    assert [one["input"] for one in typed.out] == [row["text"] for row in rows]
    assert "70 inputs predicted" in typed.err and "70 inputs predicted" in filed.err
    named = predict(run, "--column", "{id}: {text}", typed=lines_of(rows[:2]))
    assert [one["input"] for one in named.out] == ["0: good 0", "1: good 1 long"]
    # Lines of text, though one looks like an object; and a prompt may be an object.
    assert predict(run, typed="{good} film\n").out[0]["input"] == "{good} film"
    asked = predict(run_named(runs, "chat"), typed='{"a": 1}\n{"prompt": "open 3"}\n')
    assert [one["input"] for one in asked.out] == ['{"a": 1}', "open 3"]


def test_lines_that_cannot_be_read_are_named_left_out_and_counted(predict, runs):
    run = run_named(runs, "class")
    typed = '{"text": "good"}\n\n{"text": "bad\n{"txt": "bad"}\n{"text": ""}\nbad\n{"text": "x"}\n'
    found = predict(run, typed=typed)
    assert found.code == 2 and [one["input"] for one in found.out] == ["good", "x"]
    for says in (
        "left out: standard input:3 is not JSON",
        "left out: standard input:4: no column 'text' (data.text of the run, or --column)",
        "left out: standard input:5: the input is empty",
        "left out: standard input:6 is not a JSON row, as the lines before it",
        "2 inputs predicted, 4 left out",
    ):
        assert says in found.err, found.err
    broken = predict(run, typed='{"text": "good\n')
    assert broken.code == 2 and broken.out == []
    assert "standard input:1 is not JSON" in broken.err
    assert "no line of standard input can be read" in broken.err


@pytest.fixture(scope="module")
def pair_runs(tiny_llama, tmp_path_factory) -> Path:
    """The folder of a run on pairs, and of one on words."""
    folder = tmp_path_factory.mktemp("pairs")
    model = tiny_llama(layers=1, tied=False, seed=3)
    made = recipe(model, folder, name="pairs", task="text-classification").model_dump()
    made["data"]["text_pair"] = "prompt"
    tune(Recipe.parse(made), base=folder / "runs")
    words = [
        {"tokens": ["Aspirin", "helps", f"{n}"], "tags": ["B-Drug", "O", "O"]} for n in range(16)
    ]
    made = recipe(model, folder, name="words", task="token-classification").model_dump()
    (folder / "words.jsonl").write_text(lines_of(words), "utf-8")
    made["data"]["train"] = str(folder / "words.jsonl")
    tune(Recipe.parse(made), base=folder / "runs")
    return folder / "runs"


def test_pairs_and_words_are_read_from_json_rows(predict, pair_runs, tmp_path):
    pairs = str(pair_runs / run_named(pair_runs, "pairs"))
    rows = [{"prompt": f"b {n}", "text": f"a {n}", "label": "?"} for n in range(3)]
    (tmp_path / "pairs.jsonl").write_text(lines_of(rows), "utf-8")
    table = "text,prompt\n" + "".join(f"{row['text']},{row['prompt']}\n" for row in rows)
    (tmp_path / "pairs.csv").write_text(table, "utf-8")
    tabbed = "".join(f"{row['text']}\t{row['prompt']}\n" for row in rows)
    expected = predict(pairs, "pairs.csv").out
    assert [one["input"] for one in expected] == [[f"a {n}", f"b {n}"] for n in range(3)]
    for found in (
        predict(pairs, "pairs.jsonl"),
        predict(pairs, typed=lines_of(rows)),
        predict(pairs, typed=tabbed),
        predict(pairs, typed=tabbed.splitlines()[0] + "\n" + lines_of(rows[1:])),
    ):
        assert found.code == 0 and found.out == expected
    # Rows of another number share a pass, and the last digit of a sum may differ.
    bad = predict(pairs, typed=lines_of([rows[0], {"text": "a"}, {"text": " ", "prompt": "b"}]))
    assert bad.code == 2 and [one["input"] for one in bad.out] == [expected[0]["input"]]
    assert bad.out[0]["probabilities"] == pytest.approx(expected[0]["probabilities"], abs=1e-5)
    assert "standard input:2: no column 'prompt' (data.text_pair of the run)" in bad.err
    assert "standard input:3: the input is empty (column 'text')" in bad.err
    one = predict(pairs, typed="a\n")
    assert one.code == 2 and "standard input:1: input 1 must be two texts with a tab" in one.err

    words = str(pair_runs / run_named(pair_runs, "words"))
    tokens = [{"tokens": ["Aspirin", "helps"]}, {"tokens": ["no", "Aspirin", "here"]}]
    found = predict(words, typed=lines_of(tokens))
    assert [one["input"] for one in found.out] == [row["tokens"] for row in tokens]
    assert predict(words, typed="Aspirin helps\n").out[0]["input"] == "Aspirin helps"
    assert predict(words, typed='{"text": "Aspirin helps"}\n').out[0]["input"] == "Aspirin helps"
    mixed = predict(words, typed=lines_of([tokens[0], {"tokens": "Aspirin"}, tokens[1]]))
    assert mixed.code == 2 and [one["input"] for one in mixed.out] == [
        row["tokens"] for row in tokens
    ]
    assert "standard input:2: column 'tokens' " in mixed.err
