"""Folders that bitsandbytes quantised, read and written: its bytes, its weights, its logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from etude.core.errors import ModelError, RunError
from etude.tuning.adapters.merge import merge_adapter
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.export.bitsandbytes import quantize_model
from etude.tuning.models.describe import describe
from etude.tuning.models.load import LoadedModel, load_model
from etude.tuning.models.sources import resolve
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load as load_tuned
from etude.tuning.quant.block import BlockLinear
from etude.tuning.quant.int8 import Int8Linear
from etude.tuning.quant.linear import QuantLinear

pytestmark = pytest.mark.integration

CODINGS = {
    "nf4": QuantSpec(kind="nf4"),
    "nf4 plain": QuantSpec(kind="nf4", double=False),
    "fp4": QuantSpec(kind="fp4"),
    "int8": QuantSpec(kind="int8"),
}


def theirs_config(quant: QuantSpec, **more: Any) -> BitsAndBytesConfig:
    if quant.kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, **more)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant.kind,
        bnb_4bit_use_double_quant=quant.double,
        bnb_4bit_compute_dtype=torch.float32,
        **more,
    )


def load(folder: Path, quant: QuantSpec) -> LoadedModel:
    return load_model(ModelSpec(id=str(folder), dtype="float32"), quant)


def decoded(linear: Any) -> torch.Tensor:
    """What bitsandbytes says that one of its layers holds."""
    if isinstance(linear, bnb.nn.Linear8bitLt):
        state = linear.state
        codes, stats = linear.weight.data, linear.weight.SCB if state.SCB is None else state.SCB
        return bnb.functional.int8_vectorwise_dequant(codes, stats)
    return bnb.functional.dequantize_4bit(linear.weight.data, linear.weight.quant_state).float()


def their_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """In evaluation bitsandbytes repacks its weights on a processor, to compute in bfloat16."""
    return model.train()(input_ids=ids).logits.detach()


def assert_same_weights(model: Any, theirs: Any) -> int:
    """Each quantised layer decodes to the same bits; return how many there are."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, QuantLinear)}
    for name, layer in layers.items():
        assert torch.equal(layer.dequantize(torch.float32), decoded(theirs.get_submodule(name)))
    rest = {n: p for n, p in theirs.named_parameters() if n.rpartition(".")[0] not in layers}
    for name, parameter in rest.items():
        assert torch.equal(model.get_parameter(name), parameter), name
    return len(layers)


@pytest.fixture(scope="module")
def saved(
    tiny_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Any]]:
    """A factory: a tiny model that transformers and bitsandbytes quantised and saved."""
    from transformers import AutoTokenizer

    def make(quant: QuantSpec, **more: Any) -> tuple[Path, Any]:
        # Rows of whole blocks: others bitsandbytes 0.50.2 decodes wrongly where there is AVX-512.
        dense = tiny_llama(intermediate_size=192)
        theirs = AutoModelForCausalLM.from_pretrained(
            dense, quantization_config=theirs_config(quant, **more), dtype=torch.float32
        )
        folder = tmp_path_factory.mktemp("saved")
        theirs.save_pretrained(folder)
        AutoTokenizer.from_pretrained(dense).save_pretrained(folder)
        return folder, theirs

    return make


@pytest.mark.parametrize("coding", CODINGS)
def test_what_bitsandbytes_saved_is_held_as_it_is(saved, coding):
    folder, theirs = saved(CODINGS[coding])
    loaded = load(folder, QuantSpec(kind="native"))
    assert assert_same_weights(loaded.model, theirs) == 14
    held = Int8Linear if coding == "int8" else BlockLinear
    assert all(isinstance(m, held) for m in loaded.model.modules() if isinstance(m, QuantLinear))
    files = load_file(folder / "model.safetensors")
    path = "model.layers.1.mlp.down_proj"
    layer = loaded.model.get_submodule(path)
    assert torch.equal(
        layer.codes.flatten(), files["model.layers.1.mlp.down_proj.weight"].flatten()
    )
    assert layer.spec == CODINGS[coding].model_copy(update={"block": 64})
    ids = torch.arange(40)[None]
    with torch.no_grad():
        ours = loaded.model(input_ids=ids).logits
        if coding != "int8":  # whose products bitsandbytes computes in 8 bits
            torch.testing.assert_close(ours, their_logits(theirs, ids), rtol=1e-5, atol=1e-5)
    asked = load(folder, CODINGS[coding])  # the same, asked for by name
    assert torch.equal(asked.model(input_ids=ids).logits, ours)
    dense = load(folder, QuantSpec(kind="none"))
    assert not any(isinstance(m, QuantLinear) for m in dense.model.modules())
    torch.testing.assert_close(dense.model(input_ids=ids).logits, ours, rtol=1e-5, atol=1e-5)
    weight = dense.model.get_submodule(path).weight
    assert torch.equal(weight, layer.dequantize(torch.float32))


def test_linears_that_were_left_dense_stay_dense(saved):
    skipped = ["lm_head", "model.layers.0.self_attn.q_proj"]
    folder, theirs = saved(CODINGS["nf4"], llm_int8_skip_modules=skipped)
    loaded = load(folder, QuantSpec(kind="native"))
    assert assert_same_weights(loaded.model, theirs) == 13
    assert type(loaded.model.get_submodule(skipped[1])) is torch.nn.Linear
    asked = load(folder, CODINGS["nf4"])  # asks for the others to be quantised, too
    assert sum(isinstance(m, QuantLinear) for m in asked.model.modules()) == 14


def test_an_adapter_is_trained_on_the_codes_and_merged_into_what_they_stand_for(
    saved, tiny_recipe, tmp_path
):
    folder, _ = saved(CODINGS["nf4 plain"])
    fields = tiny_recipe(
        model={"id": str(folder), "dtype": "float32"},
        quant={"kind": "native"},
        train={"epochs": 6},
    )
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    assert run.summary["eval_loss"] < 0.8 * run.summary["eval_loss_before"]
    tuned = load_tuned(run.folder)
    spec = ModelSpec(id=str(folder))
    report = merge_adapter(spec, run.folder / "adapter", tmp_path / "merged", dtype="float32")
    assert report.base == "dequantized"
    assert "quantization_config" not in json.loads((report.folder / "config.json").read_text())
    merged = AutoModelForCausalLM.from_pretrained(report.folder, dtype=torch.float32)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            merged(input_ids=ids).logits,
            tuned.loaded.model(input_ids=ids).logits,
            rtol=1e-4,
            atol=1e-4,
        )


def test_codes_are_not_rounded_a_second_time(saved):
    folder, _ = saved(CODINGS["nf4"])
    for quant in (QuantSpec(kind="fp4"), QuantSpec(kind="int8"), QuantSpec(block=128)):
        with pytest.raises(ModelError, match=r"in nf4, blocks of 64.*kind: native"):
            load(folder, quant)


def test_a_start_that_wants_the_weight_before_rounding_is_refused(saved):
    folder, _ = saved(CODINGS["nf4"])
    loaded = load(folder, QuantSpec(kind="native"))
    with (
        UnquantizedWeights(loaded.files) as original,
        pytest.raises(ModelError, match="the original weight is needed"),
    ):
        original("model.layers.0.self_attn.q_proj")


def test_its_size_in_memory_is_known_without_loading_it(saved):
    folder, _ = saved(CODINGS["nf4"])
    facts = describe(resolve(str(folder)), QuantSpec())
    model = load_model(ModelSpec(id=str(folder), dtype="bfloat16"), QuantSpec(kind="native")).model
    tensors = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    # Buffers of no checkpoint, rotary frequencies, are counted on both sides.
    assert facts.memory is not None
    assert facts.memory.native == facts.memory.nf4 == sum(tensors.values())


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("coding", "change", "message"),
    [
        ("nf4", lambda t: t.pop(f"{Q}.weight.nested_absmax"), r"tensor .*nested_absmax"),
        ("nf4", lambda t: t.pop(f"{Q}.weight.quant_map"), r"tensor .*quant_map"),
        (
            "nf4",
            lambda t: t[f"{Q}.weight.quant_map"].mul_(2),
            r"unknown 4-bit format",
        ),
        (
            "nf4",
            lambda t: t[f"{Q}.weight.quant_state.bitsandbytes__nf4"].fill_(65),
            r"not in bitsandbytes' format",
        ),
        (
            "nf4",
            lambda t: t.update({f"{Q}.weight": t[f"{Q}.weight"][:-3]}),
            r"codes: expected \d+ elements of torch.uint8, got \d+",
        ),
        (
            "nf4 plain",
            lambda t: t[f"{Q}.weight.absmax"].fill_(float("nan")),
            r"absmax contains values that are not finite",
        ),
        ("int8", lambda t: t[f"{Q}.weight_format"].fill_(2), r"layout that bitsandbytes"),
        ("int8", lambda t: t.pop(f"{Q}.SCB"), r"weight"),
    ],
)
def test_damaged_codes_are_refused_in_one_line(saved, coding, change, message):
    folder, _ = saved(CODINGS[coding])
    rewrite(folder, change)
    with pytest.raises(ModelError, match=message) as error:
        load(folder, QuantSpec(kind="native"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_written_here_is_what_bitsandbytes_would_have_made(tiny_llama, tmp_path, coding):
    dense = tiny_llama(tied=False, intermediate_size=192)
    # bitsandbytes rounds weights to float16 before it makes int8 of them.
    rewrite(dense, lambda t: t.update({name: v.half().float() for name, v in t.items()}))
    quant = CODINGS[coding]
    report = quantize_model(ModelSpec(id=str(dense), dtype="float32"), quant, tmp_path / "out")
    assert report.layers == 14
    loaded = AutoModelForCausalLM.from_pretrained(report.folder, dtype=torch.float32)
    made = AutoModelForCausalLM.from_pretrained(
        dense, quantization_config=theirs_config(quant), dtype=torch.float32
    )
    assert assert_same_weights(load(report.folder, quant).model, made) == 14
    ours, theirs = loaded.state_dict(), made.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if "quant_state" in name:
            both = [json.loads(bytes(t.tolist())) for t in (ours[name], value)]
            assert both[0] == both[1]
        else:
            assert torch.equal(ours[name], value), name
    ids = torch.arange(40)[None]
    assert torch.equal(their_logits(loaded, ids), their_logits(made, ids))


def test_what_was_written_can_be_written_again(tiny_llama, tmp_path):
    dense = tiny_llama(tied=True)
    first = quantize_model(ModelSpec(id=str(dense)), QuantSpec(), tmp_path / "one")
    second = quantize_model(ModelSpec(id=str(first.folder)), QuantSpec(), tmp_path / "two")
    one, two = (load_file(report.folder / "model.safetensors") for report in (first, second))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_cannot_be_written_leaves_nothing(tiny_llama, tmp_path):
    dense = tiny_llama()
    with pytest.raises(ModelError, match="bitsandbytes has no int4"):
        quantize_model(ModelSpec(id=str(dense)), QuantSpec(kind="int4"), tmp_path / "out")
    with pytest.raises(RunError, match="contains the base model itself"):
        quantize_model(ModelSpec(id=str(dense)), QuantSpec(), dense, overwrite=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="already exists"):
        quantize_model(ModelSpec(id=str(dense)), QuantSpec(), tmp_path / "full")
    with pytest.raises(RunError, match="not a model folder"):
        quantize_model(ModelSpec(id=str(dense)), QuantSpec(), tmp_path / "full", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.weights
def test_smollm2_is_quantised_as_bitsandbytes_does_it(smollm2, tmp_path):
    spec = ModelSpec(id=str(smollm2), dtype="float32")
    report = quantize_model(spec, QuantSpec(), tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(report.folder, dtype=torch.float32)
    loaded = load(report.folder, QuantSpec())
    assert assert_same_weights(loaded.model, theirs) == 210
    ids = loaded.tokenizer("def mean(values):\n    return", return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.model(input_ids=ids).logits, their_logits(theirs, ids), rtol=1e-4, atol=1e-3
        )
