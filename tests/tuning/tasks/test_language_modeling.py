"""Language modelling: perplexity is transformers', inside and outside the domain."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch

from etude.core.errors import DataError, RecipeError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.sources.registry import Row
from etude.tuning.evaluation import evaluate_run
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.language_modeling import suits

pytestmark = pytest.mark.integration

WORDS = ("left", "right", "add", "value", "self", "return", "join", "split", "text", "line")


def document(number, sentences):
    """A document of a small language of its own."""
    return "\n\n".join(
        f"The {WORDS[(number + i) % 10]} of {WORDS[(number * 3 + i) % 10]} returns {i}."
        for i in range(sentences)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve documents of 1 to 23 sentences, and general text."""
    made = tmp_path_factory.mktemp("texts")
    (made / "own").mkdir()
    for number in range(12):
        file = made / "own" / f"{number:02}.{'md' if number % 2 else 'txt'}"
        file.write_text(document(number, 1 + 2 * number))
    (made / "general.txt").write_text("import json\n\ndef parse(text):\n    pass\n" * 12)
    return made


def recipe(model, folder, **sections):
    fields = {
        "name": "own",
        "task": "language-modeling",
        "model": {"id": str(model), "dtype": "float32"},
        "adapter": {"rank": 8, "alpha": 16},
        "quant": {"kind": "none"},
        "data": {"train": str(folder / "own"), "eval_fraction": 0.25, "max_length": 32},
        "train": {"epochs": 6, "batch_samples": 8, "micro_tokens": 128, "lr": 1e-2, "threads": 1},
        "eval": {"generate": 2, "max_new_tokens": 6, "general": str(folder / "general.txt")},
    }
    return Recipe.parse(
        {
            name: {**part, **sections.get(name, {})} if isinstance(part, dict) else part
            for name, part in fields.items()
        }
    )


@pytest.fixture(scope="module")
def run(tiny_llama, folder):
    return tune(recipe(tiny_llama(), folder), base=folder / "runs")


def held_out(run):
    chosen = Recipe.read_run(run.folder / "recipe.yaml")
    from etude.tuning.tasks.registry import task_named

    return task_named("language-modeling").read(chosen)


def row_nats(model, ids, size):
    """Return Σ nats of all tokens of `ids` but the first, in rows that share one token."""
    total = 0.0
    for begin in range(0, len(ids) - 1, size - 1):
        row = torch.tensor([ids[begin : begin + size]])
        with torch.no_grad():
            # The mean over the row's targets, as transformers computes it.
            total += float(model(row, labels=row).loss) * (row.shape[1] - 1)
    return total


def window_nats(model, ids, size, stride):
    """Return Σ nats where each window after the first scores its last `stride` tokens."""
    total, scored, stop = 0.0, 1, min(size, len(ids))
    while True:
        begin = max(0, stop - size)
        row = torch.tensor([ids[begin:stop]])
        labels = row.clone()
        labels[:, : scored - begin] = -100
        with torch.no_grad():
            total += float(model(row, labels=labels).loss) * (stop - scored)
        if stop == len(ids):
            return total
        scored, stop = stop, min(stop + stride, len(ids))


def test_a_run_reports_the_gain_inside_and_the_loss_outside(run):
    summary = run.summary
    assert [m["name"] for m in summary["metrics"]] == [
        "eval_loss",
        "perplexity",
        "bits_per_byte",
        "general_loss",
        "general_perplexity",
        "general_bits_per_byte",
    ]
    assert summary["perplexity"] < 0.6 * summary["perplexity_before"]
    assert summary["general_perplexity"] != summary["general_perplexity_before"]
    assert summary["perplexity"] == pytest.approx(math.exp(summary["eval_loss"]))
    assert summary["loss_unit"] == "nats per token"
    page = (run.folder / "report.html").read_text("utf-8")
    for words in ("inside the domain", "outside the domain", "bits per byte", "share one token"):
        assert words in page
    samples = RunFolder.open(run.folder).read_samples()
    assert len(samples) == 2 and samples[0]["origin"].endswith((".md", ".txt"))
    assert TaskRecord.read(run.folder / "adapter") == TaskRecord("language-modeling")


@pytest.mark.parametrize("stride", [None, 7])
def test_perplexity_is_that_of_transformers(run, stride, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    copied = tmp_path / "copy"
    shutil.copytree(run.folder, copied)
    chosen = Recipe.read_run(copied / "recipe.yaml")
    spec = chosen.eval.model_copy(update={"stride": stride, "generate": 0, "general": None})
    (copied / "recipe.yaml").write_text(chosen.model_copy(update={"eval": spec}).to_yaml())
    found = evaluate_run(RunFolder.open(copied))["tuned"]
    model_id = chosen.model.id
    base = AutoModelForCausalLM.from_pretrained(model_id, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(run.folder / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_id)
    nats = tokens = size = 0
    end = tokenizer.eos_token_id
    for sample in held_out(run).eval:
        ids = [end, *tokenizer(sample.text, add_special_tokens=False)["input_ids"], end]
        nats += window_nats(model, ids, 32, stride) if stride else row_nats(model, ids, 32)
        tokens += len(ids) - 1
        size += len(sample.text.encode())
    # float32 sums over a few hundred tokens in another order.
    assert found["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_documents_are_held_out_whole_and_every_token_is_trained_once(run, tiny_tokenizer):
    split = held_out(run)
    assert len(split.train) + len(split.eval) == 12
    assert not {s.text for s in split.train} & {s.text for s in split.eval}
    totals = json.loads((run.folder / "data.json").read_text("utf-8"))["totals"]
    tokens = sum(
        len(tiny_tokenizer(s.text, add_special_tokens=False)["input_ids"]) + 1 for s in split.train
    )
    assert totals["trained tokens"] == tokens
    assert totals["training documents"] == len(split.train)


def test_a_tuned_model_goes_on_with_a_text_and_can_be_measured_on_a_file(run, folder, tmp_path):
    predictor = load(run.folder)
    (made,) = predictor.predict(["The left of value"])
    assert made.text
    assert predictor.reply("The left of value", max_new_tokens=3) is not None
    file = tmp_path / "more.jsonl"
    file.write_text(json.dumps({"text": document(3, 5)}) + "\n")
    found = evaluate_run(RunFolder.open(run.folder), data=file, base=True)
    assert found["tuned"]["perplexity"] < found["base"]["perplexity"]
    assert found["tuned"]["general_perplexity"] > 1
    assert "note" not in found["tuned"]


def test_general_text_is_mixed_in_and_never_evaluated_on(tiny_llama, folder):
    from etude.core.progress import SilentProgress
    from etude.tuning.models.load import load_model
    from etude.tuning.tasks.registry import task_named

    replay = folder / "replay"
    replay.mkdir(exist_ok=True)
    (replay / "same.txt").write_text((folder / "general.txt").read_text())
    (replay / "other.txt").write_text("class Reader:\n    lines = []\n" * 30)
    chosen = recipe(tiny_llama(), folder, data={"replay": {"file": str(replay), "share": 0.2}})
    task = task_named(chosen.task)
    split = task.read(chosen)
    assert any("data.replay that are evaluated on: 1 (same.txt)" in n for n in split.notes)
    loaded = load_model(chosen.model, chosen.quant)
    data = task.encode(split, loaded, chosen, SilentProgress())
    general = [s for s in data.train.samples if s.origin.startswith("other.txt")]
    share = sum(s.trained_tokens for s in general) / data.train.stats.trained_tokens
    assert 0.2 <= share < 0.2 + 32 / data.train.stats.trained_tokens
    assert data.facts["rows of general text"] == len(general)


def test_a_single_document_has_its_end_held_out(tiny_llama, folder, tmp_path):
    file = tmp_path / "book.txt"
    file.write_text(document(1, 60))
    chosen = recipe(tiny_llama(), folder, data={"train": str(file), "eval_fraction": 0.1})
    from etude.tuning.tasks.registry import task_named

    split = task_named(chosen.task).read(chosen)
    assert split.train[0].text + "\n\n" + split.eval[0].text == document(1, 60)
    assert any("its end is held out: from book.txt:" in note for note in split.notes)
    with pytest.raises(DataError, match="no evaluation documents"):
        task_named(chosen.task).read(
            recipe(tiny_llama(), folder, data={"train": str(file), "eval_fraction": 0.0})
        )


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"objective": {"kind": "dpo"}}, r"objective\.kind: dpo is for task: chat"),
        ({"eval": {"metrics": ["bleu"]}}, r"eval\.metrics is for task: chat"),
        ({"eval": {"stride": 32}}, r"eval\.stride 32 must be below data\.max_length 32"),
        ({"data": {"kind": "docstrings"}}, "questions and answers: use task: chat"),
        ({"task": "chat", "data": {"replay": {"file": "x"}}}, r"data\.replay\.file is for task"),
    ],
)
def test_what_is_for_another_task_is_refused(sections, words):
    fields = {"task": "language-modeling", "data": {"train": "x", "max_length": 32}}
    for name, part in sections.items():
        fields[name] = {**fields.get(name, {}), **part} if isinstance(part, dict) else part
    with pytest.raises(RecipeError, match=words):
        Recipe.parse(fields)


def test_plain_text_is_what_the_task_suits(folder):
    assert suits(DataSpec(train=str(folder / "own")), None)
    assert suits(DataSpec(train="x.jsonl"), Row("x.jsonl:1", {"text": "a"}))
    row = Row("x.jsonl:1", {"prompt": "a", "completion": "b", "text": "c"})
    assert not suits(DataSpec(train="x.jsonl"), row)


def test_a_learning_rate_of_nothing_is_said_to_change_nothing(tiny_llama, folder, tmp_path):
    from etude.tuning.callbacks import Callback

    lines = []
    view = Callback()
    view.on_message = lines.append
    chosen = recipe(tiny_llama(), folder, train={"lr": 1e-30, "epochs": 1})
    tune(chosen, base=tmp_path, callbacks=[view])
    assert any("exactly the outputs of its base" in line for line in lines)
