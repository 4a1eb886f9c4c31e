"""Models with some of the layers of others: what is kept, who can open it, what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from etude.core.errors import AdapterError, ModelError, RecipeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.memory.fit import estimate_recipe
from etude.tuning.memory.model_configs import open_outline
from etude.tuning.models.cut import cut_module
from etude.tuning.models.load import ModelFiles, load_model
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.tasks.embedding import TRUNK

NONE = QuantSpec(kind="none")


@pytest.fixture
def tiny_encoder(tmp_path, tiny_tokenizer):
    """A folder of a small random BERT without a head: three layers."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tiny_tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def cut(folder, keep, **more):
    return load_model(ModelSpec(id=str(folder), dtype="float32", keep_layers=keep), NONE, **more)


@pytest.mark.parametrize(
    ("keep", "numbers"), [(2, [0, 1]), ([0, 3], [0, 3]), ([1, 2, 3], [1, 2, 3])]
)
def test_a_cut_decoder_is_transformers_own_with_the_other_layers_taken_out(
    tiny_llama, keep, numbers
):
    from transformers import AutoModelForCausalLM

    folder = tiny_llama(layers=4)
    loaded = cut(folder, keep)
    assert loaded.model.config.num_hidden_layers == len(numbers)
    assert loaded.origin.kept_layers == tuple(numbers)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs.model.layers = torch.nn.ModuleList([theirs.model.layers[n] for n in numbers])
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = theirs(input_ids=ids, use_cache=False).logits
        found = loaded.model(input_ids=ids, use_cache=False).logits
    assert torch.equal(found, expected)


def test_a_cut_encoder_is_transformers_own_too(tiny_encoder):
    from transformers import AutoModel

    loaded = cut(tiny_encoder, [0, 2], head=TRUNK)
    theirs = AutoModel.from_pretrained(tiny_encoder, dtype=torch.float32)
    cut_module(theirs, (0, 2))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = theirs(input_ids=ids).last_hidden_state
        found = loaded.model(input_ids=ids).last_hidden_state
    assert torch.equal(found, expected)


def test_other_layers_are_another_model(tiny_llama):
    folder = tiny_llama(layers=3)
    prints = {str(keep): cut(folder, keep).origin.fingerprint for keep in (None, 2, [0, 2])}
    assert len(set(prints.values())) == 3
    assert cut(folder, [0, 1]).origin.fingerprint == prints["2"]


def test_kinds_of_layers_stay_with_their_layers(tiny_tokenizer, tmp_path):
    """Qwen2 may have windows in some layers only, listed in its configuration."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    config = Qwen2Config(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=kinds,
        sliding_window=4,
        use_sliding_window=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = cut(tmp_path, [1, 2])
    assert loaded.model.config.layer_types == ["sliding_attention", "full_attention"]


def test_the_estimate_is_of_the_layers_that_are_kept(tiny_llama):
    folder = tiny_llama(layers=4)
    found = []
    for keep in (None, 4, 2):
        recipe = Recipe.parse(
            {"model": {"id": str(folder), "keep_layers": keep}, "data": {"train": "-"}}
        )
        with open_outline(recipe.model) as outline:
            found.append(estimate_recipe(recipe, outline))
    whole, same, half = found
    assert same.parts == whole.parts
    assert half.trained == whole.trained / 2
    assert half.parameters == sum(p.numel() for p in cut(folder, 2).model.parameters())


@pytest.mark.integration
def test_a_run_of_a_cut_model_loads_again_and_is_merged_to_a_folder_for_transformers(
    tiny_recipe, tiny_llama, tmp_path
):
    """The merge compares its logits with those of PEFT on transformers' model, cut likewise."""
    from transformers import AutoModelForCausalLM

    from etude.app.export import merge_run

    folder = tiny_llama(layers=4)
    fields = tiny_recipe(train={"max_steps": 3})
    fields["model"] = {**fields["model"], "id": str(folder), "keep_layers": [0, 2, 3]}
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    written = json.loads((run.folder / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == f"{folder}, layers 0, 2, 3"
    again = load(run.folder)
    assert len(again.loaded.model.model.layers) == 3
    report = merge_run(str(run.folder), tmp_path / "merged", tmp_path / "runs", dtype="float32")
    assert report.peft_difference is not None
    assert report.peft_difference < 1e-5 * max(report.effect, 1)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert theirs.config.num_hidden_layers == 3
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = again.loaded.model(input_ids=ids, use_cache=False).logits
        assert torch.allclose(theirs(input_ids=ids).logits, expected, atol=1e-5)


@pytest.mark.integration
@pytest.mark.parametrize(("other", "message"), [([0, 2], "not on these"), (None, "is on other")])
def test_an_adapter_of_a_cut_model_is_refused_by_another_cut_and_by_the_whole(
    tiny_recipe, tiny_llama, tmp_path, other, message
):
    folder = tiny_llama(layers=3)
    fields = tiny_recipe(train={"max_steps": 1})
    fields["model"] = {**fields["model"], "id": str(folder), "keep_layers": 2}
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    fields["model"]["keep_layers"] = other
    fields["adapter"] = {**fields.get("adapter", {}), "start_from": str(run.folder / "adapter")}
    with pytest.raises((AdapterError, RunError), match=message):
        tune(Recipe.parse(fields), base=tmp_path / "runs")


@pytest.mark.parametrize(
    ("keep", "message"),
    [(5, "has 4 layers, numbered 0 to 3; 5 of them"), ([1, 9], "number 9 cannot be kept")],
)
def test_layers_that_are_not_there_are_one_line(tiny_llama, keep, message):
    with pytest.raises(ModelError, match=message):
        cut(tiny_llama(layers=4), keep)


@pytest.mark.parametrize("keep", [0, [], [2, 1], [1, 1], [-1]])
def test_what_is_no_choice_of_layers_is_refused(keep):
    with pytest.raises(RecipeError, match="keep_layers"):
        Recipe.parse({"model": {"id": "x", "keep_layers": keep}, "data": {"train": "-"}})


def test_layers_of_quantised_files_are_not_left_out():
    fields = {
        "model": {"id": "x", "keep_layers": 1},
        "quant": {"kind": "native"},
        "data": {"train": "-"},
    }
    with pytest.raises(RecipeError, match="cannot be left out"):
        Recipe.parse(fields)


def test_layers_that_are_not_there_are_refused_as_often_as_is_asked(tiny_llama):
    with ModelFiles(str(tiny_llama(layers=2)), 9) as files:
        for _ in range(2):
            with pytest.raises(ModelError, match="has 2 layers"):
                _ = files.checkpoint
