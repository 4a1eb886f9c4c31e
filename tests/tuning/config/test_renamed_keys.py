"""Keys by other names: old runs are read, a person is told the name of today."""

from __future__ import annotations

import pytest
import yaml

from etude.core.errors import RecipeError
from etude.tuning.config import reference
from etude.tuning.config.recipe import Recipe, apply_override
from etude.tuning.config.renamed_keys import ELSEWHERE, RENAMED, RENAMED_VALUES, translated

KEYS = {key.name: key for key in reference.keys(Recipe)}

HABITS = [
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "warmup_ratio",
    "warmup_steps",
    "lora_r",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "lora_target_modules",
    "load_in_4bit",
    "bnb_4bit_quant_type",
    "max_seq_length",
    "max_length",
    "cutoff_len",
    "sequence_len",
    "micro_batch_size",
    "num_epochs",
    "weight_decay",
    "lr_scheduler_type",
    "optim",
    "base_model",
    "model_name_or_path",
    "datasets",
    "dataset",
    "val_set_size",
    "output_dir",
    "seed",
    "packing",
    "sample_packing",
    "use_rslora",
    "use_dora",
    "init_lora_weights",
    "modules_to_save",
    "lora_modules_to_save",
    "finetuning_type",
    "stage",
    "template",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "early_stopping_patience",
    "neftune_noise_alpha",
    "bf16",
    "fp16",
    "tf32",
    "gradient_checkpointing",
    "max_grad_norm",
    "beta",
    "loraplus_lr_ratio",
]
"""Keys that people of TRL, PEFT, Axolotl and LLaMA-Factory write without looking them up."""

OLD = {
    "adapter": {"kind": "lora", "start": "pissa", "targets": ["q_proj"]},
    "data": {"train": "x", "format": "judged"},
    "train": {
        "clip": 0.5,
        "checkpointing": True,
        "lr_ratio_b": 4.0,
        "schedule": "linear",
        "warmup": 0.25,
        "final_lr": 0.5,
    },
    "objective": {"kind": "completion", "wanted_weight": 2.0, "unwanted_weight": 3.0},
}


def refusal(override):
    fields = {}
    apply_override(fields, override)
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_name_that_the_tables_give_is_a_key():
    given = set(RENAMED.values()) | {key for found in ELSEWHERE.values() for key in found.keys}
    assert given <= KEYS.keys()
    assert not RENAMED.keys() & KEYS.keys()
    # What has the same name here needs no translation, wherever it stands.
    assert not ELSEWHERE.keys() & {name.rpartition(".")[2] for name in KEYS}
    for key, values in RENAMED_VALUES.items():
        assert set(values.values()) <= set(KEYS[key].choices)
        assert not values.keys() & set(KEYS[key].choices)


def test_a_recipe_of_an_old_run_is_read_with_every_value_where_it_belongs(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(OLD), "utf-8")
    recipe = Recipe.read_run(file)
    assert (recipe.adapter.init, recipe.adapter.target_modules) == ("pissa", ["q_proj"])
    assert (recipe.data.format, recipe.objective.kind) == ("unpaired_preference", "sft")
    assert (recipe.objective.desirable_weight, recipe.objective.undesirable_weight) == (2.0, 3.0)
    train = recipe.train
    assert (train.max_grad_norm, train.gradient_checkpointing) == (0.5, True)
    assert (train.loraplus_lr_ratio, train.lr_scheduler) == (4.0, "linear")
    assert (train.warmup_ratio, train.min_lr_ratio) == (0.25, 0.5)
    assert {old for old in RENAMED if old.split(".")[1] in OLD[old.split(".")[0]]} == set(RENAMED)


def test_full_fine_tuning_of_an_old_run_is_full_fine_tuning():
    old = {"model": "minilm", "adapter": {"kind": "none"}, "quant": {"kind": "none"}}
    new = translated(old)
    assert new["adapter"] == {"kind": "full"}
    assert new["quant"] == {"kind": "none"}
    assert old["adapter"] == {"kind": "none"}
    assert Recipe.parse(new).method == "full"


def test_a_recipe_of_today_is_translated_to_itself():
    fields = Recipe().model_dump(mode="json")
    assert translated(fields) == fields


def test_a_person_is_told_every_new_name_at_once(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(OLD), "utf-8")
    with pytest.raises(RecipeError) as caught:
        Recipe.read(file)
    for old, new in RENAMED.items():
        assert f"{old} is now {new}" in str(caught.value)
    assert "data.format: judged is now data.format: unpaired_preference" in str(caught.value)
    assert "train.clip is now train.max_grad_norm" in refusal("train.clip=1")
    assert "adapter.kind: none is now adapter.kind: full" in refusal("adapter.kind=none")


@pytest.mark.parametrize("section", ["", "train.", "adapter."])
@pytest.mark.parametrize("key", HABITS)
def test_a_key_of_another_program_is_answered_with_the_key_here(section, key):
    if section + key in KEYS:
        return
    said = refusal(f"{section}{key}=1")
    named = [name for name in KEYS if "." in name and name in said]
    absent = key in ELSEWHERE and not ELSEWHERE[key].keys
    assert named or (absent and "Etude has none" in said), said


def test_what_another_program_calls_a_key_leads_to_that_key():
    assert "in Etude it is train.lr" in refusal("learning_rate=1")
    assert "in Etude it is adapter.rank" in refusal("adapter.r=8")
    assert "'objective.beta'" in refusal("train.beta=0.1")
    assert "in Etude it is train.neftune_alpha" in refusal("train.neftune_noise_alpha=5")
    assert "'train.seed'" in refusal("seed=1")


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("rank=4", "'adapter.rank'"),
        ("rnak=4", "'adapter.rank'"),
        ("max_lenght=4", "'data.max_length'"),
        ("adapter.factors.bitz=4", "'adapter.factors.bits'"),
        ("modle=a", "'model'"),
        ("train.rank=4", "'adapter.rank'"),
        ("kind=lora", "'adapter.kind' or 'quant.kind' or 'data.kind' or 'objective.kind'"),
        ("zzzz=1", "known: model, adapter,"),
        ("adapter=qlora", "adapter is a section"),
    ],
)
def test_a_key_near_to_one_of_any_section_is_proposed(override, meant):
    assert meant in refusal(override)


def test_a_recipe_without_data_is_read_and_refused_where_data_are_needed():
    recipe = Recipe.parse({"model": "minilm"})
    with pytest.raises(RecipeError, match=r"data\.train is missing"):
        recipe.require_data()
    Recipe.parse({"data": {"kind": "docstrings"}}).require_data()
