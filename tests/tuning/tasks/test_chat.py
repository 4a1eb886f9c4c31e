"""Chat: answers are generated as long as training answers are, and scored beside baselines."""

from __future__ import annotations

import json

import numpy as np
import pytest

from etude.core.errors import DataError, RecipeError
from etude.core.progress import SilentProgress
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe, apply_override
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.document_rows import DocumentEncoder
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.data.references import for_training, questions
from etude.tuning.data.samples import load_samples
from etude.tuning.data.schema import Message, Sample
from etude.tuning.evaluation import evaluate_run
from etude.tuning.metrics.generation import answer_of
from etude.tuning.models.load import load_model
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.answers import answer_tokens
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.measurement import Measurement, unchanged

pytestmark = pytest.mark.integration

SCITLDR = [
    {
        "title": f"Paper {n}",
        "source": [f"We study number {n}.", f"It is {n % 7} words long.", "Nothing follows."],
        "target": [f"Number {n} is studied.", f"A study of number {n}."][: 1 + n % 2],
    }
    for n in range(40)
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


# Names


def test_the_old_name_of_the_task_is_read_wherever_it_is_written(tmp_path):
    assert Recipe.parse({"task": "causal-lm"}).task == "chat" == Recipe().task
    file = tmp_path / "recipe.yaml"
    file.write_text("task: causal-lm\nmodel: smollm2-135m\n")
    assert Recipe.read_run(file).task == Recipe.read(file).task == "chat"
    (tmp_path / "task.json").write_text('{"task": "causal-lm", "labels": []}')
    assert TaskRecord.read(tmp_path) == TaskRecord("chat")
    with pytest.raises(RecipeError, match="task: input should be 'auto', 'chat'"):
        Recipe.parse({"task": "chatt"})


# Several references


def test_rows_with_a_list_of_answers_are_trained_whole_or_by_one(tmp_path):
    data = write(tmp_path / "rows.jsonl", SCITLDR)
    spec = DataSpec(train=data, prompt="{title}: {source}", completion="target", eval_fraction=0.0)
    rows = load_samples(spec, 0).train
    assert rows[1].messages[0].content == (
        "Paper 1: We study number 1. It is 1 words long. Nothing follows."
    )
    assert rows[1].references == ("Number 1 is studied.", "A study of number 1.")
    assert rows[0].references == ()
    every, notes = for_training(rows, spec, 0)
    assert len(every) == 60
    assert notes == [
        "training: 20 rows have several answers; each answer is trained (data.references all): "
        "60 samples"
    ]
    one, _ = for_training(rows, spec.model_copy(update={"references": "one"}), 0)
    assert len(one) == 40
    drawn = [sample.messages[-1].content for sample in one]
    assert all(answer in row["target"] for answer, row in zip(drawn, SCITLDR, strict=True))
    assert any(answer.startswith("A study") for answer in drawn)
    again, _ = for_training(rows, spec.model_copy(update={"references": "one"}), 0)
    assert [sample.messages[-1].content for sample in again] == drawn


def conversation(*turns, origin="r:1", **more):
    return Sample(tuple(Message(role, text) for role, text in turns), None, origin, **more)


def test_rows_with_one_prompt_are_one_question_and_bad_answers_are_no_references():
    samples = [
        conversation(("user", "a"), ("assistant", "one")),
        conversation(("user", "a"), ("assistant", "two")),
        conversation(("user", "b"), ("assistant", "bad"), desirable=False),
        conversation(("user", "b"), ("assistant", "good"), desirable=True),
        conversation(("user", "c"), ("assistant", "c1"), references=("c1", "c2")),
        Sample.plain("text", "r:6"),
    ]
    found = questions(samples, 10)
    assert [references for _, references in found] == [("one", "two"), ("good",), ("c1", "c2")]
    assert [references for _, references in questions(samples, 1)] == [("one", "two")]


TURNS = conversation(
    ("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2"), ("user", "q3")
)


def test_the_last_answer_of_a_conversation_is_asked_for_or_every_one():
    assert [references for _, references in questions([TURNS], 9)] == [("a2",)]
    every = questions([TURNS], 9, every_turn=True)
    assert [references for _, references in every] == [("a1",), ("a2",)]
    assert [len(sample.messages) for sample, _ in every] == [2, 4]


def test_a_conversation_is_asked_with_the_tokens_that_it_is_trained_with(
    tiny_llama, tiny_tokenizer
):
    """One template: each prompt of evaluation is what training puts before that answer."""
    encoder = Encoder(tiny_tokenizer, DataSpec())
    encoded = encoder.encode(TURNS)
    trained = np.flatnonzero(encoded.trained)
    breaks = np.flatnonzero(np.diff(trained) > 1)
    starts = [int(trained[0]), *(int(trained[at + 1]) for at in breaks)]
    prompts = [encoder.prompt_ids(s) for s, _ in questions([TURNS], 9, every_turn=True)]
    assert len(starts) == 2
    for prompt, start in zip(prompts, starts, strict=True):
        assert encoded.input_ids[:start].tolist() == prompt


def test_what_is_trained_ends_in_the_end_token_so_that_answers_stop(tiny_tokenizer):
    encoder = DocumentEncoder(tiny_tokenizer, DataSpec(max_length=16))
    question = conversation(("user", "q"), ("assistant", "a"))
    for sample in (TURNS, question, Sample.plain("text", "r:1")):
        whole = Encoder(tiny_tokenizer, DataSpec()).encode(sample)
        targets = np.flatnonzero(whole.trained)
        lasts = [at for at in targets if at + 1 == len(whole) or not whole.trained[at + 1]]
        answers = sum(turn.role == "assistant" for turn in sample.messages) or 1
        assert [whole.input_ids[at] for at in lasts] == [encoder.end_id] * answers
    rows = encoder.encode_documents([Sample.plain("some text\n" * 20, "d")]).samples
    assert rows[-1].input_ids[-1] == encoder.document_end
    assert sum(int((row.input_ids[row.trained] == encoder.document_end).sum()) for row in rows) == 1


# Length


def encoded(*runs):
    """A sample of untrained and trained runs of tokens, in turn."""
    trained = np.concatenate([np.full(length, at % 2 == 1) for at, length in enumerate(runs)])
    return EncodedSample(np.zeros(len(trained), dtype=np.int32), trained, "r:1")


def test_answers_are_as_long_as_99_of_100_training_answers():
    samples = [encoded(3, length) for length in range(1, 101)]
    assert answer_tokens(samples) == 100
    assert answer_tokens(samples * 2) == 100
    assert answer_tokens([encoded(3, 5)] * 199 + [encoded(3, 900)]) == 5
    # Of several answers the last counts, which is the one that is generated.
    assert answer_tokens([encoded(2, 50, 4, 7)]) == 7
    assert answer_tokens([]) is None


# Runs


@pytest.fixture(scope="module")
def summaries(tiny_recipe_in, tmp_path_factory):
    folder = tmp_path_factory.mktemp("summaries")
    data = write(folder / "papers.jsonl", SCITLDR)
    fields = tiny_recipe_in(folder)(
        data={"train": data, "prompt": "{source}", "completion": "target", "eval_fraction": 0.3},
        eval={
            "generate": 6,
            "max_new_tokens": None,
            "metrics": ["rouge1", "rouge2", "rougeL", "chrf"],
            "source": "source",
            "baselines": ["lead1", "oracle"],
        },
    )
    lines = []
    view = Callback()
    view.on_message = lines.append
    return tune(Recipe.parse(fields), base=folder / "runs", callbacks=[view]), lines


def test_answers_are_scored_beside_lead_1_and_the_oracle(summaries, capsys):
    from etude.tuning.report.outcome import print_outcome

    run, lines = summaries
    names = [metric["name"] for metric in run.summary["metrics"]]
    assert names == ["eval_loss", "rouge", "rouge1", "rouge2", "chrf"]
    details = json.loads((run.folder / "details.json").read_text("utf-8"))["generation"]
    lead, oracle = details["baselines"]["lead-1"], details["baselines"]["oracle"]
    assert oracle["rouge1"] >= lead["rouge1"] > 0
    assert len(details["generated_tokens"]) == 6 == len(run_samples(run))
    assert details["limit"] == max(details["limit"], *details["generated_tokens"])
    assert any(f"up to {details['limit']} tokens, as 99 of 100" in line for line in lines)
    page = (run.folder / "report.html").read_text("utf-8")
    for words in ("lead-1", "oracle", "Generated answers", "were cut at the limit", "chrF"):
        assert words in page
    print_outcome(run.folder, show=1)
    told = capsys.readouterr().out
    assert f"lead-1  ROUGE-L {lead['rouge']:.1f}, ROUGE-1 {lead['rouge1']:.1f}" in told


def run_samples(run):
    return RunFolder.open(run.folder).read_samples()


def test_a_finished_run_answers_with_the_length_of_its_training(summaries):
    run, _ = summaries
    limit = json.loads((run.folder / "details.json").read_text("utf-8"))["generation"]["limit"]
    assert TaskRecord.read(run.folder / "adapter").options == {"max_new_tokens": limit}
    predictor = load(run.folder)
    assert predictor.recipe.eval.max_new_tokens == limit
    found = evaluate_run(RunFolder.open(run.folder))
    assert found["tuned"]["rouge1"] == run.summary["rouge1"]
    assert found["lead-1"]["rouge1"] <= found["oracle"]["rouge1"]
    assert found["oracle"]["samples"] == 6


def test_the_score_of_a_sample_is_that_of_its_nearest_reference(summaries):
    run, _ = summaries
    for sample in run_samples(run):
        (row,) = [r for r in SCITLDR if sample["reference"] in r["target"]]
        assert sample["prompt"] == " ".join(row["source"])
    scores = [sample["score_after"] for sample in run_samples(run)]
    assert run.summary["rouge"] == pytest.approx(sum(scores) / len(scores))


def test_a_row_without_its_source_is_named(tiny_recipe, tmp_path):
    rows = [{key: row[key] for key in ("title", "target")} for row in SCITLDR]
    recipe = Recipe.parse(
        tiny_recipe(
            data={
                "train": write(tmp_path / "p.jsonl", rows),
                "prompt": "title",
                "completion": "target",
            },
            eval={"source": "abstract", "baselines": ["lead1"], "generate": 2},
        )
    )
    with pytest.raises(DataError, match=r"p\.jsonl:\d+: no column 'abstract' \(eval\.source\)"):
        tune(recipe, base=tmp_path / "runs")


def test_metrics_see_no_ignored_targets(tiny_recipe, tmp_path, monkeypatch):
    """Labels of -100 in a batch that is decoded end an evaluation elsewhere."""
    recipe = Recipe.parse(tiny_recipe())
    loaded = load_model(recipe.model, recipe.quant)
    task = task_named("chat")
    data = task.encode(task.read(recipe), loaded, recipe, SilentProgress())
    decode = loaded.tokenizer.decode

    def checked(ids, **options):
        assert min(ids, default=0) >= 0
        return decode(ids, **options)

    monkeypatch.setattr(loaded.tokenizer, "decode", checked)
    folder = RunFolder.create("x", tmp_path)
    with folder:
        objective = task.objective(recipe, loaded, data, folder, SilentProgress())
    measured = task.measure(loaded, data, recipe, objective, SilentProgress())
    assert len(measured.predictions) == 2


def test_equal_outputs_of_base_and_tuned_are_said():
    one = Measurement(2.5, {"rouge": 1.0}, ["a"], [1.0])
    assert "exactly the outputs of its base" in unchanged(one, Measurement(2.5, {}, ["a"], [1.0]))
    assert unchanged(one, Measurement(2.5, {}, ["b"], [1.0])) is None
    assert unchanged(one, Measurement(2.4999, {}, ["a"], [1.0])) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": ["slots"]}, r"eval\.metrics: slots needs eval\.slots"),
        ({"baselines": ["lead1"]}, r"eval\.baselines needs eval\.source"),
        ({"answer_pattern": "(a"}, r"eval\.answer_pattern '\(a' is not a regular expression"),
        ({"answer_pattern": "(a)(b)"}, "has 2 groups"),
        ({"metrics": ["blue"]}, r"eval\.metrics\.0: input should be 'rouge1'"),
    ],
)
def test_settings_of_the_evaluation_that_cannot_be_used_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        Recipe.parse({"data": {"train": "x"}, "eval": options})


def test_the_pattern_of_gsm8k_can_be_given_on_the_command_line():
    fields = {"data": {"train": "x"}}
    apply_override(fields, r"eval.answer_pattern='####\s*(.+)'")
    apply_override(fields, "eval.metrics=[exact_match, rougeL]")
    spec = Recipe.parse(fields).eval
    assert answer_of("2 + 2 = 4\n#### 4", spec.answer_pattern) == "4"
    assert spec.metrics == ["exact_match", "rougeL"]


def test_plain_text_is_trained_as_it_was_and_told_of_its_own_task(tiny_recipe, tmp_path):
    data = write(tmp_path / "t.jsonl", [{"text": f"def f{n}(): return {n}"} for n in range(24)])
    lines = []
    view = Callback()
    view.on_message = lines.append
    run = tune(
        Recipe.parse(tiny_recipe(data={"train": data}, train={"epochs": 1})),
        base=tmp_path / "runs",
        callbacks=[view],
    )
    assert run.summary["task"] == "chat"
    assert any("task: language-modeling" in line for line in lines)
