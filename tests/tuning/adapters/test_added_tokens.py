"""Tokens added to a vocabulary: their rows alone are trained, and PEFT computes the same."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from small_models import load_tiny, logits, randomize
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.core.errors import AdapterError, ModelError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.merge import merge_adapter
from etude.tuning.adapters.modules_to_save import saved_modules
from etude.tuning.adapters.multi_adapter import (
    adapter_disabled,
    adapter_parameters,
    delete_adapter,
)
from etude.tuning.adapters.read import read_adapter
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.adapters.saved_parts import CONFIG, WEIGHTS
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.load import load_model
from etude.tuning.objectives.cross_entropy import completion_loss
from etude.tuning.settle import settled

TOKENS = ["<tool>", "</tool>", "<|plan|>"]

# Sums of float32 in another order, through two layers.
NEAR = 1e-6


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request, tiny_llama):
    return tiny_llama(tied=request.param)


def with_tokens(folder, quant="none", dtype="float32", **keys):
    spec = ModelSpec(id=str(folder), dtype=dtype, **{"add_tokens": TOKENS, **keys})
    return load_model(spec, QuantSpec(kind=quant))


def resized(folder, rows):
    """Return transformers' model with rows for the new tokens, drawn anew as it does."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.resize_token_embeddings(rows)
    return model.eval()


def ids_of(loaded):
    """Return a row in which the added tokens occur, as inputs and as targets."""
    new = list(loaded.added.ids)
    return torch.tensor([[5, 9, new[0], 17, new[2], 21, new[1], new[0], 33, 8]])


def adapted(loaded, spec=None):
    spec = spec or AdapterSpec(rank=4, alpha=8, target_modules=["q_proj", "up_proj"])
    add_adapter(loaded.model, spec, seed=0, tokens=loaded.added.ids)
    return spec


def test_new_rows_begin_as_the_mean_as_in_transformers_and_nothing_else_changes(folder):
    loaded, plain = with_tokens(folder), load_tiny(folder)
    words = len(plain.tokenizer)
    assert loaded.added.ids == (words, words + 1, words + 2)
    assert loaded.model.config.vocab_size == words + 3
    theirs = resized(folder, words + 3)
    for ours, other, before in zip(
        (loaded.model.get_input_embeddings(), loaded.model.get_output_embeddings()),
        (theirs.get_input_embeddings(), theirs.get_output_embeddings()),
        (plain.model.get_input_embeddings(), plain.model.get_output_embeddings()),
        strict=True,
    ):
        assert torch.equal(ours.weight[:words], before.weight)
        # transformers draws around the mean, with 1e-9 of the covariance.
        torch.testing.assert_close(ours.weight, other.weight, rtol=0, atol=2e-5)
        assert torch.equal(ours.weight[words], ours.weight[words + 1])
    tied = loaded.model.config.tie_word_embeddings
    ends = loaded.model.get_input_embeddings().weight, loaded.model.get_output_embeddings().weight
    assert (ends[0] is ends[1]) == tied
    ids = torch.arange(3, 40)[None]
    assert torch.equal(logits(loaded.model, ids)[..., :words], logits(plain.model, ids))


@pytest.mark.parametrize("kind", ["lora", "dora", "head"])
def test_peft_computes_the_same_from_the_saved_folder(folder, tmp_path, kind):
    loaded = with_tokens(folder)
    frozen = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    spec = adapted(loaded, AdapterSpec(kind=kind, rank=4, target_modules=["q_proj", "up_proj"]))
    model, ids = loaded.model, ids_of(loaded)
    # At first nothing is changed but by the rounding of sums.
    torch.testing.assert_close(
        logits(model, ids), logits(with_tokens(folder).model, ids), rtol=0, atol=1e-5
    )
    randomize(model)
    ours = logits(model, ids)
    save_adapter(model, tmp_path, spec, loaded.origin)
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        rows = {key for key in file.keys() if "token" in key}  # noqa: SIM118
    ends = ["model.embed_tokens"] + ([] if model.config.tie_word_embeddings else ["lm_head"])
    assert rows == {f"base_model.model.{e}.token_adapter.trainable_tokens_delta" for e in ends}
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["trainable_token_indices"] == {end: list(loaded.added.ids) for end in ends}
    peft = PeftModel.from_pretrained(resized(folder, model.config.vocab_size), tmp_path).eval()
    scale = float(ours.abs().max())
    assert float((logits(peft, ids) - ours).abs().max()) <= NEAR * scale
    again = with_tokens(folder)
    load_adapter(again.model, tmp_path, origin=again.origin)
    assert torch.equal(logits(again.model, ids), ours)
    # What is pretrained is as it was, bit for bit, behind the adapter and without it.
    for name, value in model.state_dict().items():
        plain = name.replace(".base.", ".")
        if plain in frozen:
            assert torch.equal(value, frozen[plain]), name
    with adapter_disabled(model):
        assert torch.equal(logits(model, ids), logits(with_tokens(folder).model, ids))
    delete_adapter(model, "default")
    assert not saved_modules(model)


def test_gradients_are_pefts(folder, tmp_path):
    loaded = with_tokens(folder)
    spec = adapted(loaded)
    randomize(loaded.model)
    save_adapter(loaded.model, tmp_path, spec, loaded.origin)
    model, ids = loaded.model.double(), ids_of(loaded)
    for parameter in adapter_parameters(model).values():
        parameter.requires_grad_(True)
    targets = torch.full_like(ids, -100)
    targets[:, :-1] = ids[:, 1:]
    ours = completion_loss(model, ids, targets)
    ours.backward()
    peft = PeftModel.from_pretrained(
        resized(folder, model.config.vocab_size), tmp_path, is_trainable=True
    ).double()
    theirs = F.cross_entropy(peft(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum")
    theirs.backward()
    torch.testing.assert_close(ours, theirs)
    found = dict(peft.named_parameters())
    compared = 0
    for name, parameter in adapter_parameters(model).items():
        if name.endswith("trainable_tokens_delta"):
            path = name.removesuffix(".trainable_tokens_delta")
            other = found[f"base_model.model.{path}.token_adapter.trainable_tokens_delta.default"]
            torch.testing.assert_close(parameter.grad, other.grad)
            assert float(parameter.grad.abs().min(dim=1).values.max()) > 0
            compared += 1
    assert compared == (1 if model.config.tie_word_embeddings else 2)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "rows"])
def test_an_adapter_that_peft_made_is_read_and_merged(folder, tmp_path, whole):
    loaded = with_tokens(folder)
    ids = ids_of(loaded)
    new = list(loaded.added.ids)
    tied = loaded.model.config.tie_word_embeddings
    rows = new if tied else {"embed_tokens": new, "lm_head": new}
    config = LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=rows)
    torch.manual_seed(0)
    peft = get_peft_model(resized(folder, 1 + max(new)), config).eval()
    with torch.no_grad():
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    # By default PEFT stores the whole matrices beside the rows, since they were resized.
    peft.save_pretrained(tmp_path / "theirs", save_embedding_layers=whole)
    loaded.tokenizer.save_pretrained(tmp_path / "theirs")
    theirs = logits(peft, ids)
    load_adapter(loaded.model, tmp_path / "theirs")
    scale = float(theirs.abs().max())
    assert float((logits(loaded.model, ids) - theirs).abs().max()) <= NEAR * scale
    # The tokens are those of the tokenizer in the adapter's folder.
    report = merge_adapter(
        ModelSpec(id=str(folder)), tmp_path / "theirs", tmp_path / "merged", dtype="float32"
    )
    assert report.peft_difference is not None
    assert report.peft_difference <= NEAR * scale
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    assert merged.config.tie_word_embeddings == tied
    assert float((logits(merged, ids) - theirs).abs().max()) <= NEAR * scale
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").convert_tokens_to_ids(TOKENS) == new
    with pytest.raises(AdapterError, match=r"do not fit its weight here.*model\.add_tokens"):
        load_adapter(load_tiny(folder).model, tmp_path / "theirs")


def test_rows_are_merged_into_16_bits_and_a_quantised_base(folder, tmp_path):
    loaded = with_tokens(folder, quant="nf4", dtype="bfloat16")
    spec = adapted(loaded)
    randomize(loaded.model)
    ids = ids_of(loaded)
    save_adapter(loaded.model, tmp_path / "ours", spec, loaded.origin)
    loaded.tokenizer.save_pretrained(tmp_path / "ours")
    assert loaded.model.get_input_embeddings().base.weight.dtype == torch.bfloat16
    merge_adapter(
        ModelSpec(id=str(folder)), tmp_path / "ours", tmp_path / "merged", dtype="bfloat16"
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16).eval()
    rows = saved_modules(loaded.model)["model.embed_tokens"].copies["default"]
    held = merged.get_input_embeddings().weight[list(loaded.added.ids)]
    assert torch.equal(held, rows.trainable_tokens_delta.bfloat16())
    assert logits(merged, ids).shape[-1] == merged.config.vocab_size


def test_an_adapter_without_quantised_layers_says_that_its_base_was_quantised(folder, tmp_path):
    """It was trained on the decoded weights, so it is merged into them."""
    loaded = with_tokens(folder, quant="nf4")
    spec = adapted(loaded, AdapterSpec(kind="head"))
    randomize(loaded.model)
    ours = logits(loaded.model, ids_of(loaded))
    save_adapter(loaded.model, tmp_path / "a", spec, loaded.origin)
    loaded.tokenizer.save_pretrained(tmp_path / "a")
    found = read_adapter(tmp_path / "a").provenance
    assert found is not None
    assert found.quant.kind == "nf4"
    report = merge_adapter(
        ModelSpec(id=str(folder)), tmp_path / "a", tmp_path / "m", dtype="float32"
    )
    assert report.base == "dequantized"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    difference = (logits(merged, ids_of(loaded)) - ours).abs().max()
    assert float(difference) <= 10 * NEAR * float(ours.abs().max())


def test_modules_that_are_trained_whole_have_the_new_rows_among_theirs(folder, tmp_path):
    loaded = with_tokens(folder)
    spec = AdapterSpec(rank=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    adapted(loaded, spec)
    model = loaded.model
    names = adapter_parameters(model)
    tied = model.config.tie_word_embeddings
    assert ("lm_head.trainable_tokens_delta" in names) == (not tied)
    assert "model.embed_tokens.weight" in names
    randomize(model)
    ids = ids_of(loaded)
    ours = logits(model, ids)
    save_adapter(model, tmp_path, spec, loaded.origin)
    peft = PeftModel.from_pretrained(resized(folder, model.config.vocab_size), tmp_path).eval()
    assert float((logits(peft, ids) - ours).abs().max()) <= NEAR * float(ours.abs().max())
    loaded.tokenizer.save_pretrained(tmp_path)
    merge_adapter(ModelSpec(id=str(folder)), tmp_path, tmp_path / "merged", dtype="float32")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    assert float((logits(merged, ids) - ours).abs().max()) <= NEAR * float(ours.abs().max())


def test_tokens_in_another_order_than_the_adapters_are_refused(folder, tmp_path):
    loaded = with_tokens(folder)
    spec = adapted(loaded)
    save_adapter(loaded.model, tmp_path, spec, loaded.origin)
    loaded.tokenizer.save_pretrained(tmp_path)
    other = ModelSpec(id=str(folder), add_tokens=TOKENS[::-1])
    with pytest.raises(AdapterError, match=r"<\|plan\|> has the number .* there and"):
        merge_adapter(other, tmp_path, tmp_path / "merged", dtype="float32")


def test_rows_to_spare_are_used_first(tiny_llama, tiny_tokenizer):
    words = len(tiny_tokenizer)
    folder = tiny_llama(vocab_size=words + 2)
    loaded = with_tokens(folder)
    assert loaded.added.ids == (words, words + 1, words + 2)
    assert loaded.model.config.vocab_size == words + 3
    fits = load_model(
        ModelSpec(id=str(folder), dtype="float32", add_tokens=TOKENS[:2]), QuantSpec(kind="none")
    )
    base = load_tiny(folder).model.get_input_embeddings().weight
    assert torch.equal(fits.model.get_input_embeddings().weight, base)
    adapted(fits)
    rows = saved_modules(fits.model)["model.embed_tokens"].copies["default"]
    expected = base.double().mean(0).float().expand(2, -1)
    torch.testing.assert_close(rows.trainable_tokens_delta.detach(), expected)


def test_an_output_matrix_with_a_bias_or_an_adapter_is_refused(folder):
    loaded = with_tokens(folder)
    spec = AdapterSpec(rank=2, target_modules=["lm_head"])
    if not loaded.model.config.tie_word_embeddings:
        with pytest.raises(AdapterError, match=r"lm_head has an adapter; some rows of it"):
            adapted(loaded, spec)
    loaded = with_tokens(folder)
    head = loaded.model.lm_head
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features), requires_grad=False)
    with pytest.raises(AdapterError, match=r"modules_to_save: \[lm_head\]"):
        adapted(loaded)


# What a recipe says


def test_known_tokens_are_named_and_special_ones_are_special(folder, tmp_path):
    file = tmp_path / "tokens.txt"
    file.write_text("<tool>\n\n<|im_end|>\n", "utf-8")
    spec = ModelSpec(
        id=str(folder), add_tokens=str(file), add_special_tokens=["<|start|>"], dtype="float32"
    )
    loaded = load_model(spec, QuantSpec(kind="none"))
    assert loaded.added.tokens == ("<tool>", "<|start|>")
    assert loaded.added.known == ("<|im_end|>",)
    assert "already in the vocabulary, not added: <|im_end|>" in loaded.added.notes
    text = "<|start|>a<tool>b"
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert set(loaded.added.ids) <= set(ids)
    assert loaded.tokenizer.decode(ids, skip_special_tokens=True) == "a<tool>b"


def test_a_file_of_tokens_is_listed_in_the_recipe_of_a_run(tmp_path):
    file = tmp_path / "tokens.txt"
    file.write_text("<a>\n<b>\n", "utf-8")
    fields = {"model": {"add_tokens": str(file)}, "data": {"train": "rows.jsonl"}}
    assert settled(Recipe.parse(fields), tmp_path).model.add_tokens == ["<a>", "<b>"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"add_tokens": "nowhere.txt"}, r"cannot read nowhere\.txt.*one token on each line"),
        ({"add_tokens": "empty.txt"}, "contains no token"),
        ({"add_tokens": "twice.txt", "add_special_tokens": ["<a>"]}, "'<a>' is named twice"),
    ],
)
def test_files_of_tokens_that_cannot_be_read_are_refused(
    folder, tmp_path, monkeypatch, keys, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n", "utf-8")
    (tmp_path / "twice.txt").write_text("<a>\n", "utf-8")
    with pytest.raises(ModelError, match=message):
        load_model(ModelSpec(id=str(folder), **keys), QuantSpec(kind="none"))


def test_tokens_that_do_not_go_with_the_adapter_are_refused_at_once():
    from etude.core.errors import RecipeError

    for fields, message in (
        ({"model": {"add_tokens": ["<a>", "<a>"]}}, "named twice"),
        ({"model": {"add_tokens": [" "]}}, "is no token"),
        ({"model": {"add_tokens": ["<a>"]}, "adapter": {"kind": "vera"}}, "adapter.kind: vera"),
    ):
        with pytest.raises(RecipeError, match=message):
            Recipe.parse(fields)


def test_an_adapter_names_its_rows_and_not_its_weights(folder, tmp_path):
    loaded = with_tokens(folder)
    spec = adapted(loaded)
    randomize(loaded.model)
    save_adapter(loaded.model, tmp_path, spec, loaded.origin)
    saved = read_adapter(tmp_path)
    assert saved.beside_factors == "trained rows of an embedding"
    assert not saved.modules
    width = loaded.model.config.hidden_size
    assert all(rows.shape == (3, width) for rows in saved.tokens.values())
