"""`etude data check` of labelled texts: the faults that a run refuses, found without one."""

from __future__ import annotations

import json

import pytest

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.check.linter import check_data
from etude.tuning.data.labelled import load_labelled

TASK = "text-classification"


def rows(count=60, labels=("negative", "positive")):
    return [{"text": f"text number {n}", "label": labels[n % len(labels)]} for n in range(count)]


@pytest.fixture
def check(tmp_path):
    def call(train, held_out=None, tokenizer=None, **options):
        files = {}
        for name, found in (("train", train), ("eval", held_out)):
            if found is not None:
                file = tmp_path / f"{name}.jsonl"
                file.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
                files[name] = str(file)
        spec = DataSpec(**files, **options)
        report = check_data(spec, tokenizer, task=TASK)
        return spec, {found.check: found for found in report.findings}

    return call


def changed(number, **values):
    found = rows()
    found[number] |= values
    return found


@pytest.mark.parametrize(
    ("name", "train", "held_out", "expected"),
    [
        ("empty-texts", changed(4, text=" "), None, ["train.jsonl:5"]),
        ("mixed-labels", changed(6, label=0.5), None, ["train.jsonl:7"]),
        ("one-class", rows(12, labels=("x",)), None, None),
        ("identifiers", [{"text": f"t {n}", "label": f"id{n}"} for n in range(300)], None, None),
        ("same-texts", [{"text": "t", "label": "ab"[n % 2]} for n in range(9)], rows(4), None),
        ("unseen-labels", rows(), changed(2, label="neutral")[:5], ["eval.jsonl:3"]),
    ],
)
def test_what_a_run_would_refuse_is_an_error_with_its_rows(check, name, train, held_out, expected):
    spec, findings = check(train, held_out)
    finding = findings[name]
    assert finding.severity == "error"
    if expected is not None:
        assert finding.rows == expected
    # The run itself refuses them, in the words of the finding.
    from etude.tuning.data.labels import label_kind, require_learnable

    with pytest.raises(DataError) as refused:
        split = load_labelled(spec, 0)
        kind = label_kind(spec, [*split.train, *split.eval])
        require_learnable(split, spec, kind)
    if name not in ("empty-texts", "one-class", "identifiers", "same-texts"):
        assert finding.examples == [str(refused.value)]


def test_good_data_have_no_error(check):
    _, findings = check(rows())
    assert not [name for name, finding in findings.items() if finding.severity == "error"]


def test_rare_and_unbalanced_classes_and_spellings_are_told(check):
    labels = ["usual"] * 90 + ["Usual "] * 6 + ["odd"] * 6 + ["alone"]
    found = [{"text": f"text {n}", "label": label} for n, label in enumerate(labels)]
    found[91]["label"] = "USUAL"
    _, findings = check(found, eval_fraction=0.0)
    assert findings["single-rows"].rows == ["train.jsonl:92", "train.jsonl:103"]
    assert findings["label-imbalance"].severity == "warning"
    assert "objective.class_weights" in findings["label-imbalance"].advice
    assert "train.jsonl:92" in findings["label-spelling"].rows


def test_a_text_of_two_classes_is_a_contradiction_and_not_a_duplicate(check):
    found = [*rows(), {"text": "text number 3", "label": "negative"}, rows()[5]]
    _, findings = check(found, eval_fraction=0.0)
    assert findings["contradictions"].rows == ["train.jsonl:61"]
    assert findings["duplicates"].rows == ["train.jsonl:62"]


def test_the_command_checks_by_the_task(etude_command, tiny_llama, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in changed(6, label=0.5)), "utf-8")
    options = ["--set", f"task={TASK}", "--set", "data.eval_fraction=0.2"]
    done = etude_command("data", "check", file, "--model", tiny_llama(), *options)
    assert done.returncode == 1
    assert "labels of several kinds" in done.stdout and "rows.jsonl:7" in done.stdout
    fixed = etude_command(
        "data", "check", file, "--model", tiny_llama(), *options, "--fix", tmp_path / "out.jsonl"
    )
    assert fixed.returncode == 1
    assert len((tmp_path / "out.jsonl").read_text("utf-8").splitlines()) == 60


def test_texts_that_are_too_long_are_counted_by_the_tokenizer(check, tiny_tokenizer):
    found = changed(7, text="word " * 80)
    _, findings = check(found, tokenizer=tiny_tokenizer, max_length=32)
    assert findings["too-long"].rows == ["train.jsonl:8"]
