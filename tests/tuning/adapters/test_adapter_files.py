"""Adapter folders: what PEFT writes and reads, what is refused, what a crash leaves."""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import time

import pytest
import torch
from peft import LoHaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from small_models import ORIGIN, load_tiny, logits, randomize
from transformers import AutoModelForCausalLM

from etude.core.errors import AdapterError, RunError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.adapters.read import PROVENANCE, read_adapter
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.adapters.saved_parts import CONFIG, WEIGHTS
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.models.load import ModelOrigin, load_model

SPEC = AdapterSpec(rank=4, alpha=6)


@pytest.fixture(scope="module")
def folder(tiny_llama):
    return tiny_llama()


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture
def saved(folder, tmp_path):
    """The folder of an adapter that Etude wrote, and the logits it had."""
    model = base(folder)
    add_adapter(model, SPEC, seed=0)
    randomize(model)
    save_adapter(model, tmp_path / "adapter", SPEC, ORIGIN)
    return tmp_path / "adapter", logits(model)


TARGETS = ["all-linear", ["q_proj", "v_proj"], ["*.0.mlp.*"], ["lm_head", "down_proj"]]


@pytest.mark.parametrize("targets", TARGETS)
def test_peft_computes_the_same_logits_from_what_etude_saves(folder, tmp_path, targets):
    spec = AdapterSpec(rank=4, alpha=6, target_modules=targets)
    model = base(folder)
    add_adapter(model, spec, seed=0)
    randomize(model)
    save_adapter(model, tmp_path, spec, ORIGIN)
    theirs = PeftModel.from_pretrained(base(folder), tmp_path).eval()
    assert float((logits(theirs) - logits(model)).abs().max()) <= 1e-5
    assert float((logits(base(folder)) - logits(model)).abs().max()) > 0.1


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], r".*\.1\.mlp\.\w+_proj"])
def test_etude_computes_the_same_logits_from_what_peft_saves(folder, tmp_path, targets):
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False
    )
    torch.manual_seed(0)
    theirs = get_peft_model(base(folder), config).eval()
    theirs.save_pretrained(tmp_path)
    model = base(folder)
    load_adapter(model, tmp_path)
    assert float((logits(theirs) - logits(model)).abs().max()) <= 1e-5
    assert float((logits(base(folder)) - logits(model)).abs().max()) > 0.1


@pytest.mark.weights
def test_smollm2_adapters_travel_both_ways(smollm2, tmp_path):
    ids = torch.arange(100, 124)[None]
    loaded = load_model(ModelSpec(id=str(smollm2), dtype="float32"), QuantSpec(kind="none"))
    spec = AdapterSpec(rank=8, alpha=16)
    add_adapter(loaded.model, spec, seed=0)
    randomize(loaded.model, std=0.02)
    save_adapter(loaded.model, tmp_path / "ours", spec, loaded.origin)
    ours = logits(loaded.model, ids)
    del loaded

    plain = load_model(ModelSpec(id=str(smollm2), dtype="float32"), QuantSpec(kind="none"))
    before = logits(plain.model, ids)
    theirs = PeftModel.from_pretrained(plain.model, tmp_path / "ours").eval()
    assert float((logits(theirs, ids) - ours).abs().max()) <= 1e-5
    assert float((before - ours).abs().max()) > 0.1
    theirs.save_pretrained(tmp_path / "theirs")
    del theirs, plain

    again = load_model(ModelSpec(id=str(smollm2), dtype="float32"), QuantSpec(kind="none"))
    load_adapter(again.model, tmp_path / "theirs", origin=again.origin)
    assert float((logits(again.model, ids) - ours).abs().max()) <= 1e-5


def test_a_quantised_model_computes_what_bitsandbytes_and_peft_do(tiny_llama, tmp_path):
    import bitsandbytes as bnb

    # Rows of whole blocks: bitsandbytes 0.50.2 decodes others wrongly on processors with AVX-512.
    folder = tiny_llama(intermediate_size=192)
    ours = load_tiny(folder, quant="nf4")
    add_adapter(ours.model, SPEC, seed=0)
    randomize(ours.model)
    save_adapter(ours.model, tmp_path, SPEC, ours.origin)

    model = base(folder)
    for name, linear in list(model.named_modules()):
        if isinstance(linear, torch.nn.Linear) and name != "lm_head":
            packed = bnb.nn.Linear4bit(
                linear.in_features,
                linear.out_features,
                bias=False,
                compute_dtype=torch.float32,
                quant_type="nf4",
            )
            packed.weight = bnb.nn.Params4bit(
                linear.weight.data, requires_grad=False, quant_type="nf4"
            )
            model.set_submodule(name, packed.to("cpu"))
    # In training mode: for evaluation bitsandbytes repacks the weights to compute in bfloat16.
    theirs = PeftModel.from_pretrained(model, tmp_path).train()
    assert "Linear4bit" in str(theirs.base_model.model.model.layers[0].mlp.up_proj)
    assert float((logits(theirs) - logits(ours.model)).abs().max()) <= 1e-5


def test_what_is_loaded_is_what_was_saved_and_frozen_unless_asked(folder, saved):
    path, expected = saved
    model = base(folder)
    adapted = load_adapter(model, path, origin=ORIGIN)
    assert len(adapted) == 14
    assert torch.equal(logits(model), expected)
    assert not any(p.requires_grad for p in model.parameters())
    trainable = base(folder)
    load_adapter(trainable, path, trainable=True)
    trained = {
        name.replace("adapters.default.", "")
        for name, p in trainable.named_parameters()
        if p.requires_grad
    }
    assert trained == adapter_parameters(trainable).keys()


def test_an_adapter_knows_what_it_was_trained_on(folder, tmp_path):
    loaded = load_tiny(folder, quant="nf4")
    add_adapter(loaded.model, SPEC, seed=0)
    save_adapter(loaded.model, tmp_path, SPEC, loaded.origin)
    provenance = read_adapter(tmp_path).provenance
    assert provenance is not None
    assert provenance.base == str(folder)
    assert provenance.fingerprint == loaded.origin.fingerprint
    assert provenance.quant == QuantSpec(kind="nf4", block=64, double=True)


def test_sixteen_bit_factors_are_read_exactly(folder, saved):
    path, _ = saved
    tensors = load_file(path / WEIGHTS)
    save_file({key: value.bfloat16() for key, value in tensors.items()}, path / WEIGHTS)
    model = base(folder)
    load_adapter(model, path)
    for name, parameter in adapter_parameters(model).items():
        key = f"base_model.model.{name}.weight"
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, tensors[key].bfloat16().float())


def edit(path, change) -> None:
    tensors = dict(load_file(path / WEIGHTS))
    change(tensors)
    save_file(tensors, path / WEIGHTS)


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def test_weights_cut_short_anywhere_are_refused_in_one_line(folder, saved):
    path, _ = saved
    content = (path / WEIGHTS).read_bytes()
    for cut in (0, 1, 7, 8, 9, 500, len(content) // 2, len(content) - 1):
        (path / WEIGHTS).write_bytes(content[:cut])
        with pytest.raises(AdapterError, match="damaged") as caught:
            load_adapter(base(folder), path)
        assert "\n" not in str(caught.value)
    (path / WEIGHTS).write_bytes(b"\xff" * len(content))
    with pytest.raises(AdapterError, match="damaged"):
        read_adapter(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"peft_type": "LORA"}', "\xff\xfe"])
def test_a_damaged_config_is_refused(saved, text):
    path, _ = saved
    (path / CONFIG).write_text(text, "latin-1")
    with pytest.raises(AdapterError, match=CONFIG):
        read_adapter(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"base": 3, "quant": {}}'])
def test_a_damaged_note_of_the_base_is_refused(saved, text):
    path, _ = saved
    (path / PROVENANCE).write_text(text)
    with pytest.raises(AdapterError, match=PROVENANCE):
        read_adapter(path)


def test_missing_files_are_named(saved, tmp_path):
    path, _ = saved
    with pytest.raises(AdapterError, match=f"{CONFIG} is missing"):
        read_adapter(tmp_path / "nowhere")
    (path / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match=f"contains no {WEIGHTS}$"):
        read_adapter(path)
    (path / "adapter_model.bin").touch()
    with pytest.raises(AdapterError, match="pickle"):
        read_adapter(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(FIRST), r"missing .*q_proj\.lora_A\.weight"),
        (lambda t: t.update({"base_model.model.lm_head.bias": torch.ones(1)}), r"unexpected.*bias"),
        (lambda t: t.update({FIRST.removeprefix("base_"): t.pop(FIRST)}), r"unexpected"),
        (lambda t: t.update({FIRST: torch.ones(4, 65)}), r"64 × 65, this model's 64 × 64"),
        (lambda t: t.update({FIRST: torch.ones(5, 64)}), r"rank 5, adapter_config.json says 4"),
        (lambda t: t.update({FIRST: torch.ones(4)}), "not a floating-point matrix"),
        (lambda t: t.update({FIRST: torch.full((4, 64), float("nan"))}), "NaN"),
        (lambda t: [t.pop(key) for key in list(t) if "k_proj" in key], r"targets .*k_proj"),
        (lambda t: [t.pop(key) for key in list(t)], "empty"),
    ],
)
def test_keys_and_shapes_that_do_not_fit_are_refused(folder, saved, change, message):
    path, _ = saved
    edit(path, change)
    model = base(folder)
    with pytest.raises(AdapterError, match=message):
        load_adapter(model, path)
    assert adapter_parameters(model) == {}


def test_an_adapter_of_another_architecture_is_refused(tiny_llama, saved):
    path, _ = saved
    with pytest.raises(AdapterError, match=r"no Linear model\.layers\.1\.mlp\.down_proj"):
        load_adapter(base(tiny_llama(layers=1)), path)
    with pytest.raises(AdapterError, match="another model"):
        load_adapter(base(tiny_llama(intermediate_size=96)), path)


def test_an_adapter_of_other_weights_of_the_same_shape_is_refused_unless_forced(folder, saved):
    path, expected = saved
    other = ModelOrigin("other/model", "elsewhere", "cd" * 32)
    model = base(folder)
    with pytest.raises(AdapterError, match="trained on some/model"):
        load_adapter(model, path, origin=other)
    load_adapter(model, path, origin=other, force=True)
    assert torch.equal(logits(model), expected)


OPTIONS = [
    ("rank_pattern", {"q_proj": 2.5}),
    ("alpha_pattern", {"q_proj": "two"}),
    ("use_qalora", True),
    ("bias", "some"),
    ("lora_bias", True),
    ("init_lora_weights", "pissa_niter_16"),
    ("init_lora_weights", "corda"),
    ("layers_to_transform", "first"),
    ("trainable_token_indices", ["the"]),
    ("target_parameters", ["experts.gate_up_proj"]),
    ("an_option_of_tomorrow", {"strength": 2}),
]


@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_an_option_that_changes_the_arithmetic_is_refused_by_name(saved, option, value):
    path, _ = saved
    config = json.loads((path / CONFIG).read_text())
    (path / CONFIG).write_text(json.dumps({**config, option: value}))
    with pytest.raises(AdapterError, match=option):
        read_adapter(path)


def test_every_option_that_pefts_plain_lora_writes_is_known(folder, tmp_path):
    config = LoraConfig(r=4, target_modules=["q_proj"], exclude_modules=["1.self_attn.q_proj"])
    get_peft_model(base(folder), config).save_pretrained(tmp_path)
    assert len(json.loads((tmp_path / CONFIG).read_text())) > 30
    assert len(load_adapter(base(folder), tmp_path)) == 1


def test_another_kind_of_adapter_is_refused(folder, tmp_path):
    config = LoHaConfig(target_modules=["k_proj"])
    get_peft_model(base(folder), config).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=r"LOHA adapter; only .*IA3.* are supported"):
        read_adapter(tmp_path)


def test_a_model_with_an_adapter_takes_no_second(folder, saved):
    path, _ = saved
    model = base(folder)
    load_adapter(model, path)
    with pytest.raises(AdapterError, match="already"):
        load_adapter(model, path)


def test_nothing_worth_saving_is_not_saved(folder, tmp_path):
    model = base(folder)
    with pytest.raises(AdapterError, match="no adapter"):
        save_adapter(model, tmp_path / "a", SPEC, ORIGIN)
    add_adapter(model, SPEC, seed=0)
    next(iter(adapter_parameters(model).values())).data[0, 0] = float("inf")
    with pytest.raises(AdapterError, match=r"q_proj\.lora_A contains NaN or infinity"):
        save_adapter(model, tmp_path / "a", SPEC, ORIGIN)
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_written_is_one_line(folder, tmp_path):
    (tmp_path / "file").touch()
    model = base(folder)
    add_adapter(model, SPEC, seed=0)
    with pytest.raises(RunError, match="cannot save the adapter"):
        save_adapter(model, tmp_path / "file" / "adapter", SPEC, ORIGIN)


def test_a_disk_that_fills_up_leaves_the_previous_adapter(folder, saved):
    path, expected = saved
    model = base(folder)
    spec = AdapterSpec(rank=8, alpha=6)
    add_adapter(model, spec, seed=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))  # the system refuses byte 30001
    try:
        with pytest.raises(RunError, match=r"File too large; the previous content is intact"):
            save_adapter(model, path, spec, ORIGIN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    again = base(folder)
    load_adapter(again, path)
    assert torch.equal(logits(again), expected)
    assert sorted(file.name for file in path.iterdir()) == [CONFIG, WEIGHTS, PROVENANCE]


def save_for_ever(model, target, first_is_done) -> None:
    value = 0
    while True:
        value += 1
        for parameter in adapter_parameters(model).values():
            parameter.data.fill_(value)
        save_adapter(model, target, SPEC, ORIGIN)
        first_is_done.set()


def test_a_process_killed_while_saving_leaves_a_whole_adapter(folder, tmp_path):
    model = base(folder)
    add_adapter(model, SPEC, seed=0)
    processes = multiprocessing.get_context("fork")
    draw = random.Random(0)
    for attempt in range(5):
        target = tmp_path / str(attempt)
        first_is_done = processes.Event()
        process = processes.Process(target=save_for_ever, args=(model, target, first_is_done))
        process.start()
        assert first_is_done.wait(60)
        time.sleep(draw.uniform(0.0, 0.05))
        process.kill()
        process.join()
        factors = read_adapter(target).factors
        values = {float(v) for pair in factors.values() for f in pair.values() for v in f.unique()}
        assert len(values) == 1
