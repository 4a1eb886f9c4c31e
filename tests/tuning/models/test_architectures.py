"""Models of many architectures: loaded, trained, saved, and opened by PEFT with the same logits."""

from __future__ import annotations

import json

import pytest
import torch
from architectures import tiny

from etude.core.errors import AdapterError, ModelError, NoTargetMatchedError, RunError
from etude.tuning.adapters.combine import combine_folders
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.adapters.targets import find_targets
from etude.tuning.callbacks import Callback
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.fusion.forward_probe import called_targets
from etude.tuning.models.catalog import CATALOG
from etude.tuning.models.foreign_code import foreign_code
from etude.tuning.models.linear_layers import is_product
from etude.tuning.models.load import ModelOrigin, load_model
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.pipeline import tune
from etude.tuning.predictor import load
from etude.tuning.quant.linear import QuantLinear
from etude.tuning.training.first_step import FirstStep

ROW = torch.arange(5, 40)[None]
WITH_STATES = (
    *("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "olmo_hybrid", "lfm2", "lfm2_moe"),
    *("mamba", "mamba2", "falcon_mamba", "bamba", "granitemoehybrid", "falcon_h1", "zamba2"),
    *("jamba", "recurrent_gemma"),
)
"""Models that keep a state along the row, in all of their layers or in some."""


class Messages(Callback):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_message(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def folder_of(tmp_path, tiny_tokenizer):
    """Write a model as transformers does, and a tokenizer beside it."""

    def write(name, **more):
        folder = tmp_path / name.replace(" ", "-")
        tiny(name, vocab_size=512, **more).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return write


def _theirs(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    "name",
    [
        *("gpt_neox", "mixtral", "qwen3_moe", "qwen2_moe", "granitemoe", "gpt_oss"),
        *("llama4_text", *WITH_STATES),
    ],
)
def test_names_on_disk_are_mapped_as_transformers_maps_them(folder_of, name):
    folder = folder_of(name)
    ours = load_model(ModelSpec(id=str(folder), dtype="float32"), QuantSpec(kind="none")).model
    theirs = _theirs(folder)
    for kind in ("named_parameters", "named_buffers"):
        found, wanted = (dict(getattr(model, kind)()) for model in (ours, theirs))
        assert found.keys() == wanted.keys()
        for path, value in found.items():
            assert torch.equal(value, wanted[path]), path
    with torch.no_grad():
        found, wanted = (m(input_ids=ROW, use_cache=False).logits for m in (ours, theirs))
    # transformers' weights are views of the mapped file, aligned to 8 bytes, where ours are to 64,
    # by which a matrix library may choose its order of sums. Another kernel, position or weight
    # makes a difference of 1e-3 and more.
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_experts_that_do_not_fit_together_are_refused_by_name(folder_of):
    from safetensors.torch import load_file, save_file

    folder = folder_of("mixtral")
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if ".experts.3.w1" in name)
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"mlp\.experts\.gate_up_proj"):
        load_model(ModelSpec(id=str(folder)), QuantSpec(kind="none"))


@pytest.mark.integration
@pytest.mark.parametrize(
    "name",
    [
        *("falcon", "gptj", "bloom", "stablelm", "gemma2", "gpt_oss", "llama4_text", "mixtral"),
        *("qwen2_moe", "mamba", "lfm2", "qwen3_5_text", "granitemoehybrid", "falcon_h1"),
        *("qwen3_next", "mamba2", "bamba", "zamba2", "jamba", "recurrent_gemma"),
    ],
)
def test_a_run_trains_and_peft_opens_it_with_the_same_logits(folder_of, tiny_recipe, name):
    from peft import PeftModel

    folder = folder_of(name)
    fields = tiny_recipe(model={"id": str(folder)}, train={"max_steps": 2}, eval={"generate": 1})
    heard = Messages()
    run = tune(Recipe.parse(fields), base=folder.parent / "runs", callbacks=[heard])
    assert run.state == "finished"
    unpacked = [line for line in heard.lines if line.startswith("packing is off")]
    assert len(unpacked) == (name not in ("gemma2", "gpt_oss", "mixtral", "qwen2_moe"))
    assert not [line for line in heard.lines if "the first step" in line]

    ours = load(run.folder).loaded.model
    base = _theirs(folder)
    with torch.no_grad():
        plain = base(input_ids=ROW, use_cache=False).logits
        theirs = PeftModel.from_pretrained(base, run.folder / "adapter").eval()
        expected = theirs(input_ids=ROW, use_cache=False).logits
        found = ours(input_ids=ROW, use_cache=False).logits
    assert (expected - plain).abs().max() > 1e-3
    # The same products in the same order, up to the order of sums of float32.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


SHARED = ["shared_expert.gate_proj", "shared_expert.up_proj", "shared_expert.down_proj"]


def _random_adapter(loaded, spec, folder):
    """Add an adapter of random numbers, save it, and return the model's logits."""
    add_adapter(loaded.model, spec, seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in adapter_parameters(loaded.model).values():
            value.copy_(0.2 * torch.randn(value.shape, generator=generator))
        save_adapter(loaded.model, folder, spec, loaded.origin)
        return loaded.model(input_ids=ROW, use_cache=False).logits


def test_linears_whose_names_mean_experts_to_peft_are_written_as_parameters(folder_of, tmp_path):
    from peft import PeftModel

    folder = folder_of("qwen3_next")
    spec = AdapterSpec(
        rank=4,
        alpha=8,
        dropout=0.1,
        target_modules=["q_proj", *SHARED],
        rank_pattern={"shared_expert.up_proj": 2, "q_proj": 3},
        alpha_pattern={"shared_expert.down_proj": 5},
    )
    unquantised = QuantSpec(kind="none")
    loaded = load_model(ModelSpec(id=str(folder), dtype="float32"), unquantised)
    found = _random_adapter(loaded, spec, tmp_path / "one")
    theirs = PeftModel.from_pretrained(_theirs(folder), tmp_path / "one").eval()
    with torch.no_grad():
        expected = theirs(input_ids=ROW, use_cache=False).logits
        plain = _theirs(folder)(input_ids=ROW, use_cache=False).logits
    assert (expected - plain).abs().max() > 0.1
    # PEFT adds the change to the weight before the product.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    # Saved by PEFT, read here, and added up to twice itself.
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_model(ModelSpec(id=str(folder), dtype="float32"), unquantised).model
    load_adapter(again, tmp_path / "theirs")
    combine_folders([(tmp_path / "one", 0.5), (tmp_path / "theirs", 0.5)], tmp_path / "mean")
    mean = PeftModel.from_pretrained(_theirs(folder), tmp_path / "mean").eval()
    with torch.no_grad():
        for other in (again, mean):
            values = other(input_ids=ROW, use_cache=False).logits
            torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)


def test_dora_where_peft_could_not_hold_it_is_refused(folder_of):
    model = tiny("qwen3_next")
    with pytest.raises(AdapterError, match=r"shared_expert\.gate_proj .*cannot hold DoRA"):
        add_adapter(model, AdapterSpec(kind="dora", rank=2), seed=0)
    add_adapter(model, AdapterSpec(kind="dora", rank=2, target_modules=["q_proj"]), seed=0)


@pytest.mark.integration
def test_falcon_in_int8_changes_what_its_linears_return_in_place(folder_of, tiny_recipe):
    folder = folder_of("falcon", bias=True)
    for kind in ("int8", "nf4"):
        fields = tiny_recipe(
            model={"id": str(folder)},
            quant={"kind": kind},
            adapter={"target_modules": ["query_key_value"]},
            train={"max_steps": 1},
            eval={"generate": 0},
        )
        assert tune(Recipe.parse(fields), base=folder.parent / kind).state == "finished"


def test_subclasses_of_linear_are_told_from_products():
    falcon, llama4 = tiny("falcon"), tiny("llama4_text")
    assert is_product(falcon.transformer.h[0].mlp.dense_h_to_4h)
    router = next(m for m in llama4.modules() if type(m).__name__ == "Llama4Router")
    assert not is_product(router)
    assert not [path for path in find_targets(llama4, "all-linear") if path.endswith("router")]


def test_what_mambas_kernels_read_without_a_call_is_not_adapted():
    model = tiny("mamba")
    assert not [path for path in find_targets(model, "all-linear") if path.endswith("out_proj")]
    with pytest.raises(NoTargetMatchedError, match=r"layers\.0\.mixer\.out_proj.*PEFT refuses"):
        find_targets(model, ["out_proj"])


def test_a_target_that_is_never_called_is_refused_by_name_or_left_out():
    model = tiny("llama")
    mlp = model.model.layers[1].mlp

    def fused(x):
        inner = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
        return torch.nn.functional.linear(inner, mlp.down_proj.weight)

    mlp.forward = fused
    state = torch.get_rng_state()
    with pytest.raises(AdapterError, match=r"weight of model\.layers\.1\.mlp\.down_proj without"):
        called_targets(model, ["down_proj"])
    targets, note = called_targets(model, "all-linear")
    assert "model.layers.1.mlp.down_proj" not in targets
    assert len(targets) == 13
    assert note.startswith("not adapted: LlamaForCausalLM reads the weight of model.layers.1.mlp")
    assert torch.equal(state, torch.get_rng_state())
    assert not model.training
    assert called_targets(tiny("llama"), "all-linear") == ("all-linear", None)
    # Mamba's own code, on a processor.
    assert called_targets(tiny("mamba"), "all-linear")[1].count("dt_proj") == 2


def test_a_first_step_that_moves_nothing_stops_and_one_that_moves_some_says_which():
    parameters = {f"{name}.lora_B": torch.nn.Parameter(torch.ones(2, 2)) for name in "ab"}
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    first = FirstStep.watch(parameters)
    with pytest.raises(RunError, match="moved none"):
        first.note(lr=1e-3)
    assert first.note(lr=0.0) is None
    with torch.no_grad():
        parameters["a.lora_B"].sub_(0.5)
    assert first.note(lr=1e-3) == ("the first step trained 1 of 2 modules; no gradient reached b")


def test_an_error_of_a_models_own_code_is_one_line_with_the_module():
    model = tiny("stablelm")
    model.model.layers[1].self_attn.rotary_ndims = 3  # its own code: shapes that do not fit
    with (
        pytest.raises(
            ModelError, match=r"^StableLmForCausalLM, model\.layers\.1\.self_attn: .*RuntimeError: "
        ) as error,
        foreign_code(model),
    ):
        model(input_ids=ROW)
    assert "\n" not in str(error.value)
    with pytest.raises(ZeroDivisionError), foreign_code(model):
        _ = 1 / 0  # not the model's


def test_every_alias_is_published_under_an_id_of_the_hub():
    from etude.tuning.models.hub import is_hub_id

    assert all(is_hub_id(model.hub_id) for model in CATALOG.values() if model.hub_id)
    origin = ModelOrigin("smollm2-135m", "/somewhere/SmolLM2.gguf", "ab")
    assert origin.published == ("HuggingFaceTB/SmolLM2-135M-Instruct", None)


def test_a_base_is_published_by_its_folder_or_its_id_and_revision(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert ModelOrigin("base", "base", "ab").published == (str(tmp_path / "base"), None)
    cached = "/cache/models--a--b/snapshots/1f2e"
    assert ModelOrigin("a/b", cached, "ab").published == ("a/b", "1f2e")


@pytest.mark.integration
def test_a_run_on_a_folder_is_opened_by_pefts_auto_class(folder_of, tiny_recipe, monkeypatch):
    from peft import AutoPeftModelForCausalLM

    folder = folder_of("llama")
    monkeypatch.chdir(folder.parent)
    fields = tiny_recipe(model={"id": folder.name}, train={"max_steps": 1}, eval={"generate": 0})
    run = tune(Recipe.parse(fields), base=folder.parent / "runs")
    written = json.loads((run.folder / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(folder)
    monkeypatch.chdir("/")
    theirs = AutoPeftModelForCausalLM.from_pretrained(run.folder / "adapter").eval()
    monkeypatch.chdir(folder.parent)
    ours = load(run.folder).loaded.model
    with torch.no_grad():
        torch.testing.assert_close(
            ours(input_ids=ROW).logits, theirs(input_ids=ROW).logits, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_gpt2s_conv1d_is_quantised_as_the_linear_that_it_is(folder_of, kind):
    from etude.tuning.quant.build import quantized

    folder = folder_of("gpt2")
    quant = QuantSpec(kind=kind)
    ours = load_model(ModelSpec(id=str(folder), dtype="float32"), quant)
    theirs = _theirs(folder)
    layer = ours.model.transformer.h[1].attn.c_attn
    conv = theirs.transformer.h[1].attn.c_attn
    expected = quantized(conv.weight.T.contiguous(), quant, torch.float32, conv.bias)
    assert torch.equal(layer.dequantize(torch.float32), expected.dequantize(torch.float32))
    assert torch.equal(layer.bias, conv.bias)
    with UnquantizedWeights(ours.files) as original:
        assert torch.equal(original("transformer.h.1.attn.c_attn"), conv.weight.T)
    for path, one in ours.model.named_modules():
        if isinstance(one, QuantLinear):
            with torch.no_grad():
                theirs.get_submodule(path).weight.copy_(one.dequantize(torch.float32).T)
    with torch.no_grad():
        found, wanted = (m(input_ids=ROW).logits for m in (ours.model, theirs))
    # The same weights; int8 products round the input as well, to 7 bits.
    bound = 1e-5 if kind == "nf4" else 0.05
    torch.testing.assert_close(found, wanted, rtol=bound, atol=bound)


@pytest.mark.integration
@pytest.mark.parametrize("start", ["default", "pissa"])
def test_qlora_of_gpt2_is_opened_and_merged_by_peft(folder_of, tiny_recipe, start):
    from peft import PeftModel

    folder = folder_of("gpt2")
    fields = tiny_recipe(
        model={"id": str(folder)},
        quant={"kind": "nf4"},
        adapter={"init": start},
        train={"max_steps": 2},
        eval={"generate": 0},
    )
    run = tune(Recipe.parse(fields), base=folder.parent / "runs")
    saved = run.folder / "adapter"
    assert json.loads((saved / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    ours = load(run.folder).loaded.model
    # On the same quantised base, PEFT computes the same: each quantised weight is written back.
    base = _theirs(folder)
    for path, one in ours.named_modules():
        inner = path.removesuffix(".base")
        if isinstance(one, QuantLinear) and start == "default":
            with torch.no_grad():
                base.get_submodule(inner).weight.copy_(one.dequantize(torch.float32).T)
    theirs = PeftModel.from_pretrained(base, saved).eval()
    if start == "default":
        with torch.no_grad():
            torch.testing.assert_close(
                ours(input_ids=ROW).logits, theirs(input_ids=ROW).logits, rtol=1e-4, atol=1e-4
            )
    merged = theirs.merge_and_unload()
    assert torch.isfinite(merged(input_ids=ROW).logits).all()
