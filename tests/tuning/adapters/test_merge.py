"""Merging: the folder computes what base and adapter did, or is not there."""

from __future__ import annotations

import json
import resource

import bitsandbytes.functional as bnb
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small_models import load_tiny, logits, randomize
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.core.errors import AdapterError, RunError
from etude.tuning.adapters import merge as merge_module
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.merge import merge_adapter, merge_layers
from etude.tuning.adapters.merge_check import MergeCheck, float32_logits
from etude.tuning.adapters.merge_error import LOW_BITS, requantization_errors
from etude.tuning.adapters.multi_adapter import adapted_layers
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.quant.linear import QuantLinear

pytestmark = pytest.mark.integration


def train(folder, path, quant="none", target_modules="all-linear", std=0.1, dtype="float32"):
    """Save a random adapter trained, as it were, on the model of `folder`; return the model."""
    spec = AdapterSpec(rank=4, alpha=6, target_modules=target_modules)
    loaded = load_tiny(folder, quant, dtype)
    add_adapter(loaded.model, spec, seed=0)
    randomize(loaded.model, std)
    save_adapter(loaded.model, path, spec, loaded.origin)
    return loaded.model


def read(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@pytest.fixture
def folder(tiny_llama):
    return tiny_llama()


def spec_of(folder) -> ModelSpec:
    return ModelSpec(id=str(folder))


@pytest.mark.parametrize("tied", [True, False])
def test_a_merged_folder_is_what_peft_merges(tiny_llama, tmp_path, tied):
    folder = tiny_llama(tied=tied)
    train(folder, tmp_path / "adapter")
    report = merge_adapter(
        spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32"
    )
    theirs = PeftModel.from_pretrained(read(folder), tmp_path / "adapter").merge_and_unload()
    ours = read(tmp_path / "merged")
    for name, weight in theirs.state_dict().items():
        # Two orders of four float32 products and a sum.
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=0, atol=2e-6)
    assert (report.modules, report.base, report.dtype) == (14, "original", torch.float32)
    assert report.largest_difference < 1e-4 < 0.1 < report.effect
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(folder).chat_template
    assert ("lm_head.weight" in load_file(tmp_path / "merged" / "model.safetensors")) is not tied
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


def test_an_adapter_of_a_quantised_base_is_merged_into_the_dequantised_one(folder, tmp_path):
    tuned = train(folder, tmp_path / "adapter", quant="nf4")
    report = merge_adapter(
        spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32"
    )
    assert report.base == "dequantized"
    merged = read(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(tuned), rtol=0, atol=1e-4)
    assert not any(isinstance(module, QuantLinear) for module in merged.modules())

    report = merge_adapter(
        spec_of(folder), tmp_path / "adapter", tmp_path / "other", base="original", dtype="float32"
    )
    assert report.base == "original"
    dense = read(folder)
    load_adapter(dense, tmp_path / "adapter")
    torch.testing.assert_close(logits(read(tmp_path / "other")), logits(dense), rtol=0, atol=1e-4)
    assert float((logits(dense) - logits(tuned)).abs().max()) > 0.05  # the bases do differ


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_layers_without_an_adapter_are_written_dense_too(folder, tmp_path, quant):
    tuned = train(folder, tmp_path / "adapter", quant, target_modules=["*.0.mlp.up_proj"], std=0.5)
    merge_adapter(spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    merged = read(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(tuned), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_are_rounded_to_once(folder, tmp_path, dtype):
    tuned = train(folder, tmp_path / "adapter", quant="nf4", std=0.3)
    report = merge_adapter(spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype=dtype)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    for name, layer in adapted_layers(tuned).items():
        exact = layer.base.dequantize(torch.float32)
        exact.addmm_(
            layer.adapter.lora_B.detach(),
            layer.adapter.lora_A.detach(),
            alpha=layer.adapter.scaling,
        )
        assert torch.equal(merged[f"{name}.weight"], exact.to(report.dtype)), name
    assert {tensor.dtype for tensor in merged.values()} == {report.dtype}
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["dtype"] == dtype


def test_a_tied_head_with_an_adapter_is_untied_and_the_embedding_left_alone(folder, tmp_path):
    tuned = train(folder, tmp_path / "adapter", target_modules=["lm_head", "q_proj"])
    merge_adapter(spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    merged = read(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(tuned), rtol=0, atol=1e-4)
    before = read(folder).get_input_embeddings().weight
    assert torch.equal(merged.get_input_embeddings().weight, before)
    assert merged.config.tie_word_embeddings is False


def test_the_check_computes_in_float32_whatever_the_model_holds(folder, tmp_path):
    train(folder, tmp_path / "adapter", quant="nf4")
    ids = torch.arange(3, 40)[None]
    for quant in ("none", "nf4"):
        half = load_tiny(folder, quant, "bfloat16")
        load_adapter(half.model, tmp_path / "adapter")
        state = {name: value.clone() for name, value in half.model.state_dict().items()}
        found = float32_logits(half.model, ids)
        assert found.dtype == torch.float32
        after = half.model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in state.items())
        assert all(after[name].dtype == value.dtype for name, value in state.items())
        rounded = logits(half.model, ids)
        expected = logits(half.model.float(), ids)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert float((rounded - expected).abs().max()) > 1e-3


@pytest.mark.parametrize("dtype", ["nf4", "fp4", "int4", "4bit", "int8", "8bit"])
def test_few_bits_are_refused_with_the_reason(folder, tmp_path, dtype):
    train(folder, tmp_path / "adapter")
    target = tmp_path / "merged"
    with pytest.raises(AdapterError, match=r"change them by [\d.]+ times what the adapter does"):
        merge_adapter(spec_of(folder), tmp_path / "adapter", target, dtype=dtype)
    with pytest.raises(AdapterError, match="unknown dtype 'half'"):
        merge_adapter(spec_of(folder), tmp_path / "adapter", target, dtype="half")
    assert not target.exists()


def test_the_figures_of_a_refused_merge_are_those_of_bitsandbytes(folder):
    model = load_tiny(folder, quant="none").model
    add_adapter(model, AdapterSpec(rank=4, alpha=8, target_modules=["q_proj"]), seed=0)
    randomize(model, 0.02)
    found = requantization_errors(model, LOW_BITS["nf4"])
    expected = []
    for layer in adapted_layers(model).values():
        change = layer.delta()
        merged = layer.base.weight + change
        codes, state = bnb.quantize_4bit(merged, blocksize=64, quant_type="nf4")
        # Rows of whole blocks, which bitsandbytes 0.50.2 decodes rightly on every processor.
        rounded = bnb.dequantize_4bit(codes, state).view(merged.shape)
        expected.append(float((rounded - merged).norm() / change.norm()))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_dequantised_base_that_never_was_quantised_is_refused(folder, tmp_path):
    train(folder, tmp_path / "adapter")
    with pytest.raises(AdapterError, match="--base original"):
        merge_adapter(
            spec_of(folder), tmp_path / "adapter", tmp_path / "merged", base="dequantized"
        )


def test_another_base_is_refused(folder, tiny_llama, tmp_path):
    train(folder, tmp_path / "adapter")
    with pytest.raises(AdapterError, match="was trained on"):
        merge_adapter(spec_of(tiny_llama(seed=1)), tmp_path / "adapter", tmp_path / "merged")


def test_what_is_there_is_replaced_only_when_asked_and_only_if_it_is_a_model(folder, tmp_path):
    train(folder, tmp_path / "adapter")
    output = tmp_path / "merged"
    output.mkdir()
    (output / "notes.txt").write_text("mine")

    def merge(where, **options):
        return merge_adapter(
            spec_of(folder), tmp_path / "adapter", where, dtype="float32", **options
        )

    with pytest.raises(RunError, match="already exists"):
        merge(output)
    with pytest.raises(RunError, match="not a model folder"):
        merge(output, overwrite=True)
    with pytest.raises(RunError, match="not a model folder"):
        merge(tmp_path / "adapter", overwrite=True)
    with pytest.raises(RunError, match="base model itself"):
        merge(folder, overwrite=True)
    assert (output / "notes.txt").read_text() == "mine"
    (output / "config.json").write_text("{}")
    merge(output, overwrite=True)
    assert not (output / "notes.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]


def test_a_merge_that_forgets_one_layer_is_refused_and_leaves_nothing(
    folder, tmp_path, monkeypatch
):
    train(folder, tmp_path / "adapter")
    original = merge_layers

    def forgetful(model, dtype, progress):
        adapted_layers(model)["model.layers.1.self_attn.k_proj"].adapter.lora_B.data.zero_()
        original(model, dtype, progress)

    monkeypatch.setattr(merge_module, "merge_layers", forgetful)
    with pytest.raises(AdapterError, match="is not equivalent to base and adapter"):
        merge_adapter(spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_model_that_amplifies_every_rounding_is_judged_by_what_a_rounding_does_to_it():
    still = torch.ones(100)
    check = MergeCheck(torch.float32, 1.0, lambda unit: still + 1000 * unit)
    # 8 + 32 roundings of 1,000 · 2⁻²⁴ each are 2.4e-3; a well-conditioned model is allowed 1.6e-5.
    check.refuse_disagreement(1e-3, 1.0, "some/model")
    with pytest.raises(AdapterError, match="not equivalent to base and adapter"):
        check.refuse_disagreement(1e-2, 1.0, "some/model")


def test_what_is_read_as_something_else_than_peft_reads_is_not_merged(
    tiny_llama, tmp_path, monkeypatch
):
    from peft import LoraConfig, get_peft_model

    folder = tiny_llama(tied=True)
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])
    theirs = get_peft_model(read(folder), config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr("etude.tuning.adapters.save.are_tied", lambda *_: True)
    with pytest.raises(AdapterError, match="is not what PEFT computes"):
        merge_adapter(spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_too_small_for_the_dtype_is_refused_not_lost(folder, tmp_path):
    train(folder, tmp_path / "adapter", quant="nf4", std=3e-3)
    with pytest.raises(AdapterError, match=r"--dtype float32"):
        merge_adapter(spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="bfloat16")
    merge_adapter(spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32")


def test_an_untrained_adapter_is_not_merged(folder, tmp_path):
    loaded = load_tiny(folder)
    spec = AdapterSpec(rank=4)
    add_adapter(loaded.model, spec, seed=0)
    save_adapter(loaded.model, tmp_path / "adapter", spec, loaded.origin)
    with pytest.raises(AdapterError, match="untrained"):
        merge_adapter(spec_of(folder), tmp_path / "adapter", tmp_path / "merged")


def test_a_full_disk_leaves_nothing_and_says_so(folder, tmp_path):
    train(folder, tmp_path / "adapter")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RunError, match="nothing is left there"):
            merge_adapter(
                spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32"
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_pefts_adapters_are_merged_into_the_original(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["v_proj"], init_lora_weights=False)
    theirs = get_peft_model(read(folder), config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    merge_adapter(spec_of(folder), tmp_path / "adapter", tmp_path / "merged", dtype="float32")
    torch.testing.assert_close(logits(read(tmp_path / "merged")), logits(theirs), rtol=0, atol=1e-4)


@pytest.mark.weights
def test_smollm2_is_merged_from_its_four_bit_base(smollm2, tmp_path):
    spec = AdapterSpec(rank=8, alpha=16)
    loaded = load_tiny(smollm2, quant="nf4")
    add_adapter(loaded.model, spec, seed=0)
    randomize(loaded.model, std=0.02)
    save_adapter(loaded.model, tmp_path / "adapter", spec, loaded.origin)
    ids = torch.arange(100, 124)[None]
    expected = logits(loaded.model, ids)
    del loaded
    report = merge_adapter(
        spec_of(smollm2), tmp_path / "adapter", tmp_path / "merged", dtype="float32"
    )
    assert report.modules == 210
    merged = read(tmp_path / "merged")
    torch.testing.assert_close(logits(merged, ids), expected, rtol=0, atol=1e-3)
    assert float(expected.abs().max()) > 10
