"""Whole runs with added tokens: trained, resumed, used, evaluated, merged and planned."""

from __future__ import annotations

import json

import pytest
import torch
from test_continuing import losses, run_of, stopped
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.tuning.config.recipe import Recipe
from etude.tuning.evaluation import evaluate_run
from etude.tuning.memory.fit import estimate_recipe
from etude.tuning.memory.model_configs import open_outline
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder

pytestmark = pytest.mark.integration

TOKENS = ["<tool>", "</tool>"]


@pytest.fixture
def fields(tiny_recipe, tmp_path):
    rows = [{"prompt": f"call {i}", "completion": f"<tool>f({i})</tool> is {i}"} for i in range(40)]
    file = tmp_path / "tools.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def make(**sections):
        made = tiny_recipe(**{"data": {"train": str(file)}, "train": {"max_steps": 6}, **sections})
        made["model"] = {**made["model"], "add_tokens": TOKENS}
        return made

    return make


@pytest.mark.parametrize(
    ("adapter", "quant"),
    [
        ({}, "none"),
        ({"kind": "dora"}, "nf4"),
        ({"kind": "head"}, "none"),
        ({"kind": "full"}, "none"),
    ],
)
def test_a_run_learns_its_tokens_and_resumes_bit_for_bit(fields, tmp_path, adapter, quant):
    run = run_of(fields(adapter=adapter, quant={"kind": quant}), tmp_path / "runs")
    assert run.summary["eval_loss"] < run.summary["eval_loss_before"]
    whole = losses(run)
    saved = run.folder / ("model" if adapter.get("kind") == "full" else "adapter")
    before = {f.name: f.read_bytes() for f in saved.glob("*.safetensors")}
    folder = stopped(run, 3)
    again = tune(Recipe.read_run(folder.recipe), resume=folder)
    assert losses(again) == whole
    assert {f.name: f.read_bytes() for f in saved.glob("*.safetensors")} == before
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert tokenizer.tokenize("<tool>x")[0] == "<tool>"
    predictor = load(run.folder)
    assert isinstance(predictor.reply("call 3", max_new_tokens=4), str)
    assert len(predictor.predict(["call 3"])) == 1


def test_a_tuned_model_is_evaluated_again_and_merged_with_its_tokens(
    fields, tmp_path, etude_command
):
    run = run_of(fields(), tmp_path / "runs")
    result = evaluate_run(RunFolder.open(run.folder))
    assert result["tuned"]["loss"] == pytest.approx(run.summary["eval_loss"], rel=1e-6)
    done = etude_command("merge", str(run.folder), "--output", str(tmp_path / "merged"))
    assert done.returncode == 0, done.stderr
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert merged.config.vocab_size == len(tokenizer)
    predictor = load(run.folder)
    ids = torch.tensor([tokenizer("call 3<tool>f")["input_ids"]])
    with torch.no_grad():
        ours = predictor.loaded.model(input_ids=ids).logits
        # The base computes in float32, the merged model in this machine's dtype.
        theirs = merged(input_ids=ids).logits
    assert float((ours - theirs).abs().max()) <= 2**-7 * float(ours.abs().max())


def test_a_gguf_lora_cannot_have_rows_and_says_so(fields, tmp_path, etude_command):
    run = run_of(fields(), tmp_path / "runs")
    done = etude_command("export", run.folder, "--to", "gguf", "-o", tmp_path / "a.gguf")
    assert done.returncode == 2
    assert "trained rows of an embedding, which a GGUF LoRA file cannot contain" in " ".join(
        done.stderr.split()
    )


def test_a_template_with_the_new_tokens_ends_its_answers_with_one(
    fields, tmp_path, tiny_llama, tiny_tokenizer
):
    """A base without ChatML's tokens, with ChatML as its template."""
    base = tiny_llama()
    tokenizer = AutoTokenizer.from_pretrained(base)
    turn = "<|turn|>"
    tokenizer.chat_template = (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|over|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(base)
    made = fields()
    made["model"] = {
        "id": str(base), "dtype": "float32", "add_special_tokens": [turn, "<|over|>"]
    }  # fmt: skip
    run = run_of(made, tmp_path / "runs")
    predictor = load(run.folder)
    end = predictor.encoder.end_id
    assert predictor.loaded.tokenizer.convert_ids_to_tokens(end) == "<|over|>"
    assert end in predictor.loaded.added.ids


def test_a_plan_counts_the_rows(fields):
    recipe = Recipe.parse(fields())
    without = recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"add_tokens": []})}
    )
    with open_outline(recipe.model) as outline:
        more, less = estimate_recipe(recipe, outline), estimate_recipe(without, outline)
    width = outline.config.hidden_size
    assert more.trained - less.trained == len(TOKENS) * width
    # Two rows of the tied matrix, and as many trained ones, float32.
    held = more.parts["weights"] - less.parts["weights"]
    assert held == pytest.approx(2 * len(TOKENS) * width * 4, abs=64)
    assert more.parts["gradients"] - less.parts["gradients"] == len(TOKENS) * width * 4


def test_the_mask_of_a_sample_shows_the_new_tokens_whole(fields):
    from etude.app.data import inspect_recipe
    from etude.core.progress import SilentProgress

    inspection = inspect_recipe(Recipe.parse(fields()), 1, SilentProgress())
    texts = [piece.text for look in inspection.looks for piece in look.pieces]
    assert "<tool>" in texts
