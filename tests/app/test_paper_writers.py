"""Etude's own engine as the writer of summaries: a tiny model, tuned here."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from etude.app.papers.writers import FIGURES, asked, at_least_as_good, engine_writer
from etude.papers.summaries import write
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.samples import load_samples
from etude.tuning.pipeline import tune

REPOSITORY = Path(__file__).resolve().parents[2]
PAPERS = [
    (f"Counting {n} Apples", f"Apples are many. We propose to count {n} of them. It is good work.")
    for n in range(24)
]


def recipe_on(folder: Path, model: Path) -> Recipe:
    """Return the shipped recipe, pointed at a tiny model and rows of its own."""
    texts = [text.split("\n\n") for text in asked(PAPERS)]
    rows = [
        {"title": title, "gist": gist, "summary": f"We count {n}."}
        for n, (title, gist) in enumerate(texts)
    ]
    for name, part in (("train", rows[:-4]), ("dev", rows[-4:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, "utf-8")
    fields = yaml.safe_load((REPOSITORY / "recipes" / "paper-summaries.yaml").read_text("utf-8"))
    fields["model"] = {"id": str(model), "dtype": "float32"}
    fields["quant"] = {"kind": "none"}
    files = {"train": str(folder / "train.jsonl"), "eval": str(folder / "dev.jsonl")}
    fields["data"] |= files | {"max_eval": 2, "max_length": 400}
    fields["train"] |= {"max_minutes": None, "max_steps": 2, "threads": 1}
    return Recipe.parse(fields)


def test_a_tuned_model_is_asked_as_it_was_trained_and_guarded(tiny_llama, tmp_path):
    recipe = recipe_on(tmp_path, tiny_llama(max_position_embeddings=1024))
    run = tune(recipe, base=tmp_path / "runs")
    writer = engine_writer("latest", base=tmp_path / "runs")

    trained = load_samples(recipe.data, recipe.train.seed).train
    asked_in_training = {sample.messages[-2].content for sample in trained}
    assert asked_in_training == set(asked(PAPERS[:-4]))

    lines = writer(PAPERS[:3])
    assert [type(line) for line in lines] == [str] * 3
    # Two steps make no writer: what a random model says never reaches the reader.
    for summary, (_, abstract) in zip(write(PAPERS[:3], writer), PAPERS, strict=False):
        assert summary.text in abstract
        assert summary.how.startswith("extract:1!")
        assert summary.how.endswith(f":{writer.name}")
    assert str(tmp_path) not in writer.name
    weights = sum(file.stat().st_size for file in (run.folder / "adapter").glob("*.safetensors"))
    assert weights < 3_000_000


def test_a_model_is_preferred_by_recorded_figures_only(tmp_path):
    assert not at_least_as_good(tmp_path)
    record = tmp_path / FIGURES
    figures = {"default": {"rouge1": 43.0, "rougeL": 35.0}}
    for one, longest, better in ((43.0, 35.0, True), (44.0, 34.9, False), (42.0, 36.0, False)):
        figures["guarded"] = {"rouge1": one, "rougeL": longest}
        record.write_text(json.dumps(figures), "utf-8")
        assert at_least_as_good(tmp_path) is better
    record.write_text("[]", "utf-8")
    assert not at_least_as_good(tmp_path)
