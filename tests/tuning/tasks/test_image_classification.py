"""Image classification by a tiny vision transformer: it learns, saves its head, opens in PEFT."""

from __future__ import annotations

import html
import json

import numpy as np
import pytest
import torch
from PIL import Image

from etude.app.data import inspect_recipe
from etude.app.predict import plan_predictions, predictions
from etude.core.errors import AdapterError, DataError, ModelError, RunError
from etude.core.progress import SilentProgress
from etude.tuning.config.recipe import Recipe
from etude.tuning.data.check.linter import check_data
from etude.tuning.evaluation import evaluate_run
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder
from etude.tuning.tasks.base import TaskRecord
from etude.tuning.tasks.detect import resolved
from etude.tuning.tasks.registry import task_named
from etude.tuning.training.rungs import Rungs

SIDE = 32
COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (200, 50, 40)}


def picture(colour, number, size=(40, 36)):
    """Return an image of one colour with noise, another for each number."""
    noise = np.random.default_rng(number).integers(-40, 40, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def write_folder(root, count=12):
    for place, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(colour, 100 * place + number).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("photos") / "photos")


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory):
    """The folder of a random ViT with a preparation of its own: two layers of 32."""
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path_factory.mktemp("tiny-vit")
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=SIDE,
        patch_size=8,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ViTForImageClassification(config).save_pretrained(folder)
    stated = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.25],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(stated), "utf-8")
    return folder


def fields(data, model, /, **sections):
    base = {
        "name": "photos",
        "task": "image-classification",
        "model": {"id": str(model), "dtype": "float32"},
        "adapter": {"rank": 4, "alpha": 8},
        "quant": {"kind": "none"},
        "data": {"train": str(data), "eval_fraction": 0.25},
        "train": {"epochs": 6, "batch_samples": 8, "micro_tokens": 16, "lr": 1e-2, "threads": 1},
    }
    for name, section in sections.items():
        base[name] = {**base[name], **section} if isinstance(section, dict) else section
    return base


@pytest.fixture(scope="module", params=["none", "nf4", "int8"])
def run(request, photos, tiny_vit, tmp_path_factory):
    recipe = fields(photos, tiny_vit, quant={"kind": request.param})
    return tune(Recipe.parse(recipe), base=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def plain_run(photos, tiny_vit, tmp_path_factory):
    return tune(Recipe.parse(fields(photos, tiny_vit)), base=tmp_path_factory.mktemp("runs"))


def test_an_image_classifier_learns_from_a_folder_of_folders(run):
    summary = run.summary
    assert summary["task"] == "image-classification"
    assert summary["accuracy"] == 1.0 > summary["accuracy_before"]
    assert summary["baselines"].keys() == {"majority class"}
    assert summary["memory_estimate"]["parts"]["activations"] > 0
    totals = json.loads((run.folder / "data.json").read_text("utf-8"))["totals"]
    assert totals == {
        "training images": 27,
        "evaluation images": 9,
        **{f"class {name}": 9 for name in COLOURS},
    }
    targets = {module["name"].rpartition(".")[2] for module in summary["adapted_modules"]}
    assert not any("classifier" in name for name in targets)
    assert len(summary["adapted_modules"]) == 12  # four of attention and two of the MLP, twice


def test_a_run_predicts_and_evaluates_what_it_measured(run, photos):
    tuned = load(run.folder)
    paths = [str(photos / name / "0.png") for name in COLOURS]
    found = tuned.predict(paths)
    assert [one.text for one in found] == list(COLOURS)
    assert sum(found[0].as_json()["probabilities"].values()) == pytest.approx(1)
    again = evaluate_run(RunFolder.open(run.folder), base=True)
    assert again["tuned"]["loss"] == pytest.approx(run.summary["eval_loss"], rel=1e-5)
    assert again["base"]["loss"] == pytest.approx(run.summary["eval_loss_before"], rel=1e-5)
    whole = evaluate_run(RunFolder.open(run.folder), data=photos)
    assert whole["tuned"]["samples"] == 36


def test_what_is_saved_opens_in_transformers_and_peft_with_the_same_numbers(
    plain_run, photos, tiny_vit
):
    from peft import PeftModel
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    base = AutoModelForImageClassification.from_pretrained(
        tiny_vit, num_labels=3, ignore_mismatched_sizes=True
    )
    wrapped = PeftModel.from_pretrained(base, plain_run.folder / "adapter").eval()
    processor = AutoImageProcessor.from_pretrained(plain_run.folder / "adapter")
    paths = [photos / name / "1.png" for name in COLOURS]
    inputs = processor([Image.open(path) for path in paths], return_tensors="pt")
    with torch.no_grad():
        theirs = wrapped(**inputs).logits.softmax(1)
    ours = load(plain_run.folder).predict([str(path) for path in paths])
    shares = [list(one.as_json()["probabilities"].values()) for one in ours]
    torch.testing.assert_close(torch.tensor(shares), theirs, rtol=1e-5, atol=1e-6)


def test_an_adapter_of_peft_gives_the_same_numbers_here(plain_run, tiny_vit, photos, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForImageClassification

    from etude.tuning.adapters.save import load_adapter
    from etude.tuning.config.sections.model import ModelSpec
    from etude.tuning.config.sections.quant import QuantSpec
    from etude.tuning.models.heads import Head
    from etude.tuning.models.load import load_model

    torch.manual_seed(3)
    base = AutoModelForImageClassification.from_pretrained(
        tiny_vit, num_labels=3, ignore_mismatched_sizes=True
    )
    targets = [m["name"].rpartition(".")[2] for m in plain_run.summary["adapted_modules"]]
    config = LoraConfig(
        r=2,
        target_modules=sorted(set(targets)),
        modules_to_save=["classifier"],
        init_lora_weights=False,
    )
    wrapped: PeftModel = get_peft_model(base, config)
    wrapped.save_pretrained(tmp_path)
    loaded = load_model(
        ModelSpec(id=str(tiny_vit), dtype="float32"),
        QuantSpec(kind="none"),
        head=Head("image-classification", ("a", "b", "c")),
    )
    load_adapter(loaded.model, tmp_path, origin=loaded.origin)
    pixels = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        theirs = wrapped.eval()(pixel_values=pixels).logits
        ours = loaded.model(pixel_values=pixels).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["head", "full"])
def test_the_head_alone_and_the_whole_model_are_saved_and_opened(photos, tiny_vit, tmp_path, kind):
    train = {"lr": 2e-2 if kind == "head" else 3e-3}
    recipe = Recipe.parse(fields(photos, tiny_vit, adapter={"kind": kind}, train=train))
    run = tune(recipe, base=tmp_path)
    again = evaluate_run(RunFolder.open(run.folder))
    assert again["tuned"]["loss"] == pytest.approx(run.summary["eval_loss"], rel=1e-5)
    saved = run.folder / ("adapter" if kind == "head" else "model")
    assert (saved / "preprocessor_config.json").exists()


def test_the_preparation_is_saved_with_its_hash_and_a_change_is_refused(plain_run, tmp_path):
    record = TaskRecord.read(plain_run.folder / "adapter")
    preparation = record.options["preparation"]
    assert preparation["size"] == [SIDE, SIDE]
    assert preparation["resample"] == 3
    assert len(preparation["sha256"]) == 64
    changed = TaskRecord(
        record.task, record.labels, {"preparation": {**preparation, "resample": 2}}
    )
    with pytest.raises(AdapterError, match="preparation of images"):
        task_named("image-classification").saved_head(changed)


def test_a_table_names_images_relative_to_itself(photos, tiny_vit, tmp_path):
    rows = [f"{name}/{number}.png,{name}" for name in COLOURS for number in range(12)]
    table = photos / "table.csv"
    table.write_text("path,kind\n" + "\n".join(rows) + "\n", "utf-8")
    try:
        data = {"train": str(table), "image": "path", "label": "kind"}
        recipe = Recipe.parse(fields(photos, tiny_vit, data=data, train={"epochs": 1}))
        run = tune(recipe, base=tmp_path)
    finally:
        table.unlink()
    totals = json.loads((run.folder / "data.json").read_text("utf-8"))["totals"]
    assert totals["training images"] == 27
    assert run.summary["task"] == "image-classification"


def test_a_run_that_was_stopped_goes_on_to_the_same_losses(photos, tiny_vit, tmp_path):
    recipe = Recipe.parse(fields(photos, tiny_vit, train={"epochs": 2, "save_every": 1}))
    whole = tune(recipe, base=tmp_path / "whole")
    part = tune(recipe, base=tmp_path / "part", rungs=Rungs((0.5,), until=0.5))
    assert part.state == "stopped"
    resumed = tune(recipe, resume=RunFolder.open(part.folder))
    assert losses(resumed) == losses(whole)


def test_a_run_is_not_resumed_on_images_that_were_changed(tiny_vit, tmp_path):
    root = write_folder(tmp_path / "photos")
    recipe = Recipe.parse(fields(root, tiny_vit, train={"epochs": 2, "save_every": 1}))
    part = tune(recipe, base=tmp_path / "part", rungs=Rungs((0.5,), until=0.5))
    for number in range(12):
        picture((200, 50, 40), 900 + number).save(root / "red" / f"{number}.png")
    with pytest.raises(RunError, match="data"):
        tune(recipe, resume=RunFolder.open(part.folder))


def losses(run):
    lines = (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()
    return [record["loss"] for record in map(json.loads, lines) if "loss" in record]


def test_damaged_files_and_other_files_are_left_out_and_named(tiny_vit, tmp_path):
    root = write_folder(tmp_path / "photos")
    (root / "red" / "notes.txt").write_text("no image", "utf-8")
    whole = (root / "red" / "3.png").read_bytes()
    (root / "red" / "3.png").write_bytes(whole[: len(whole) // 2])
    picture((1, 2, 3), 1).save(root / "beside.png")
    run = tune(Recipe.parse(fields(root, tiny_vit, train={"epochs": 1})), base=tmp_path / "runs")
    notes = "\n".join(json.loads((run.folder / "data.json").read_text("utf-8"))["notes"])
    assert "photos/red/3.png" in notes
    assert "photos/red/notes.txt" in notes
    assert "photos/beside.png" in notes


def test_too_many_damaged_images_end_the_run_before_it_trains(tiny_vit, tmp_path):
    root = write_folder(tmp_path / "photos")
    for number in range(6):
        (root / "red" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match="6 of 36 images cannot be read"):
        tune(Recipe.parse(fields(root, tiny_vit)), base=tmp_path / "runs")


def test_one_class_alone_is_refused(tiny_vit, tmp_path):
    root = write_folder(tmp_path / "photos")
    for name in ("green", "blue"):
        for file in (root / name).iterdir():
            file.unlink()
        (root / name).rmdir()
    with pytest.raises(DataError, match="at least two"):
        tune(Recipe.parse(fields(root, tiny_vit)), base=tmp_path / "runs")


def test_another_size_is_refused_where_positions_are_fixed(photos, tiny_vit, tmp_path):
    recipe = Recipe.parse(fields(photos, tiny_vit, data={"image_size": 64}))
    with pytest.raises(ModelError, match="positions for images of 32 pixels"):
        tune(recipe, base=tmp_path)


def test_images_are_predicted_in_folders_and_what_is_none_is_named(plain_run, photos, tmp_path):
    picture(COLOURS["green"], 7).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    said = []
    run = str(plain_run.folder)
    job = plan_predictions(run, [tmp_path, photos / "red" / "1.png"], refuse=said.append)
    found = [one.as_json() for one in predictions(job)]
    assert [one["input"] for one in found] == [str(tmp_path / "a.png"), str(photos / "red/1.png")]
    assert [one["label"] for one in found] == ["green", "red"]
    assert len(said) == 1
    assert "b.png" in said[0]
    with pytest.raises(DataError, match=r"b\.png"):
        plan_predictions(run, [tmp_path])


def test_a_folder_of_images_is_recognised_inspected_and_checked(tmp_path, tiny_vit):
    root = write_folder(tmp_path / "photos", 4)
    (root / "red" / "0.png").write_bytes((root / "red" / "1.png").read_bytes())
    (root / "blue" / "2.png").write_bytes(b"no image")
    recipe, said = resolved(Recipe.parse({"task": "auto", "data": {"train": str(root)}}))
    assert recipe.task == "image-classification"
    assert "folders of photos" in said[0]
    inspection = inspect_recipe(recipe, 2, SilentProgress())
    assert inspection.train.samples + inspection.eval.samples == 11
    notes = "\n".join(inspection.notes)
    assert "photos/blue/2.png" in notes
    assert "widths 40 to 40, heights 36 to 36" in notes
    report = check_data(recipe.data, None, task=recipe.task)
    by_name = {finding.check: finding for finding in report.findings}
    assert by_name["unreadable"].count == 1
    assert any("repeat" in name or "duplicate" in name for name in by_name)


def test_wrong_images_are_pictures_within_the_report(tiny_vit, tmp_path):
    root = write_folder(tmp_path / "photos")
    # Labels that contradict each other cannot all be predicted.
    for number in range(6):
        picture(COLOURS["red"], 300 + number).save(root / "blue" / f"x{number}.png")
    recipe = Recipe.parse(fields(root, tiny_vit, data={"eval_fraction": 0.5}, train={"epochs": 1}))
    run = tune(recipe, base=tmp_path / "runs")
    page = html.unescape((run.folder / "report.html").read_text("utf-8"))
    worst = json.loads((run.folder / "details.json").read_text("utf-8"))["worst_errors"]
    assert worst["wrong"] > 0
    assert worst["rows"][0]["image"].startswith("data:image/jpeg;base64,")
    assert "Wrong images" in page
    assert f'<img src="{worst["rows"][0]["image"]}"' in page
