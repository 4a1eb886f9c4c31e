"""The memory estimate against what torch really allocates and keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

from etude.core.errors import NoTargetMatchedError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.objectives.cross_entropy import CHUNK
from etude.tuning.quant import build
from etude.tuning.report.fits import KNOWN_MODELS, what_fits
from etude.tuning.report.memory_table import measure_shape, memory_table

RANK, TOKENS = 8, 192


def small_config(**changes: Any) -> LlamaConfig:
    fields = {
        "vocab_size": 300,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    return LlamaConfig(**{**fields, **changes})


def kept_bytes(model: Any, tokens: int) -> int:
    """Bytes of distinct storages that autograd keeps of a forward pass, weights not counted."""
    own = {
        tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]
    }
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor
        return tensor

    ids = torch.arange(tokens)[None] % model.config.vocab_size
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=ids, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def rows(config: Any, dtype: str = "float32", **options: Any) -> dict[str, Any]:
    table = memory_table(config, RANK, TOKENS, model=ModelSpec(dtype=dtype), **options)
    return {row["method"]: row for row in table}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_activations_are_what_autograd_keeps_within_five_percent(method, dtype):
    config = small_config()
    model = LlamaForCausalLM(config).to(dtype).train()
    if method == "lora":
        model.requires_grad_(False)
        add_adapter(model, AdapterSpec(rank=RANK), seed=0)
    row = rows(config, str(dtype).removeprefix("torch."))[method]
    logits = CHUNK * config.vocab_size * (4 + dtype.itemsize)
    assert row["activations"] - logits == pytest.approx(kept_bytes(model, TOKENS), rel=0.05)


def test_weights_gradients_and_moments_of_full_and_lora_are_exact():
    config = small_config(tie_word_embeddings=False)
    model = LlamaForCausalLM(config)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    full, lora = rows(config)["full"], rows(config)["lora"]
    assert (full["weights"], full["gradients"], full["optimizer"]) == (
        weights,
        weights,
        2 * weights,
    )
    modules = add_adapter(model, AdapterSpec(rank=RANK), seed=0)
    adapter = 4 * sum(module.parameters for module in modules)
    assert lora["weights"] == weights + adapter
    assert (lora["gradients"], lora["optimizer"]) == (adapter, 2 * adapter)


@pytest.mark.parametrize("double", [True, False])
def test_quantised_weights_are_as_large_as_quantised_layers_are(double):
    """Each layer rounds its scales up to whole blocks: some bytes a layer are allowed."""
    config, quant = small_config(), QuantSpec(block=64, double=double)
    model = LlamaForCausalLM(config)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    dense = sum(parameter.nbytes for parameter in model.parameters())
    dense -= sum(layer.weight.nbytes for layer in linear)
    quantised = sum(
        sum(
            buffer.nbytes
            for buffer in build.quantized(layer.weight, quant, torch.float32).buffers()
        )
        for layer in linear
    )
    adapter = 4 * measure_shape(config, RANK, "all-linear").adapter
    estimate = rows(config, quant=quant)["qlora"]["weights"] - adapter - dense
    assert 0 <= quantised - estimate <= 12 * len(linear) + 64


def test_checkpointing_keeps_one_layer_and_the_inputs_of_all():
    deep = small_config(num_hidden_layers=12)
    kept = rows(deep)["lora"]["activations"] - rows(deep, checkpointing=True)["lora"]["activations"]
    per_layer = (
        rows(deep)["lora"]["activations"]
        - rows(small_config(num_hidden_layers=11))["lora"]["activations"]
    )
    assert kept == 11 * per_layer - 12 * TOKENS * deep.hidden_size * 4


def test_fewer_targets_mean_less_optimizer_memory_and_a_wrong_one_is_refused():
    config = small_config()
    some = rows(config, targets=["q_proj", "v_proj"])["qlora"]
    assert some["optimizer"] < rows(config)["qlora"]["optimizer"] / 2
    with pytest.raises(NoTargetMatchedError, match="query_proj"):
        memory_table(config, RANK, TOKENS, targets=["query_proj"])


def test_every_row_adds_up_and_qlora_holds_least():
    table = rows(small_config(), "bfloat16")
    for row in table.values():
        parts = ("weights", "gradients", "optimizer", "activations")
        assert row["total"] == sum(row[part] for part in parts)
    assert table["qlora"]["weights"] < table["lora"]["weights"] < table["full"]["weights"]


def test_shape_from_published_numbers_is_that_of_the_real_configuration():
    config = small_config(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    assert KNOWN_MODELS[0].shape(RANK) == measure_shape(config, RANK, "all-linear")


def test_more_memory_never_fits_less_and_qlora_fits_most():
    before = dict.fromkeys(("qlora", "lora", "full"), 0)
    for gigabytes in (0.1, 1, 2, 4, 8, 16, 32, 128, 2_000):
        fits = {fit.method: fit for fit in what_fits(int(gigabytes * 1e9), 2, 100.0)}
        assert fits["qlora"].parameters >= fits["lora"].parameters >= fits["full"].parameters
        for method, fit in fits.items():
            assert fit.parameters >= before[method]
            before[method] = fit.parameters
    assert before["full"] > 7e10


def test_model_without_llamas_names_is_estimated_too():
    """GPT-2 calls its sizes by other names and leaves the MLP's width out."""
    table = memory_table(
        GPT2Config(vocab_size=300, n_embd=64, n_layer=2, n_head=4), RANK, TOKENS, targets="lm_head"
    )
    assert all(row["activations"] > 0 for row in table)
