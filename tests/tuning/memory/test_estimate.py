"""The memory plan against models, optimisers and forward passes that really are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, tiny
from transformers import (
    AutoConfig,
    BertConfig,
    BertModel,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    MixtralForCausalLM,
)

from etude.core.errors import InsufficientMemoryError, ModelError, NoTargetMatchedError
from etude.core.units import size
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.fusion.packed_heads import segment_logits
from etude.tuning.fusion.packing_probe import exact_layout
from etude.tuning.fusion.patch import fused_layers
from etude.tuning.kernels import native
from etude.tuning.memory import trace as trace_module
from etude.tuning.memory.estimate import (
    PARTS,
    answering_bytes,
    estimate_memory,
    held_as,
    optimizer_bytes,
)
from etude.tuning.memory.fit import (
    METHODS,
    estimate_recipe,
    first_option,
    options,
    require_fit,
)
from etude.tuning.memory.model_configs import KNOWN, ModelOutline, config_of, open_outline
from etude.tuning.memory.trace import row_shape, trace_step, weigh
from etude.tuning.models import load
from etude.tuning.models.heads import Head
from etude.tuning.models.load import load_model
from etude.tuning.objectives.cross_entropy import cross_entropy_sum, plain_head
from etude.tuning.optim.optimizers import make_optimizer
from etude.tuning.pipeline import tune
from etude.tuning.preparation import adapt
from etude.tuning.report import fits


def recipe(**sections: Any) -> Recipe:
    fields: dict[str, Any] = {
        "adapter": {"rank": 4, "alpha": 8},
        "data": {"train": "-", "max_length": 64},
        "train": {"micro_tokens": 128},
        "eval": {"generate": 0},
    }
    for name, section in sections.items():
        fields[name] = {**fields.get(name, {}), **section} if isinstance(section, dict) else section
    return Recipe.parse(fields)


def llama(**changes: Any) -> LlamaConfig:
    fields = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    return LlamaConfig(**{**fields, **changes})


@pytest.mark.parametrize("quant", ["none", "nf4", "int8"])
@pytest.mark.parametrize("kind", ["lora", "dora", "vera", "ia3"])
def test_weights_are_counted_to_the_byte(tiny_llama, quant, kind):
    folder = tiny_llama()
    chosen = recipe(quant={"kind": quant}, adapter={"kind": kind})
    model = load_model(ModelSpec(id=str(folder), dtype="bfloat16"), chosen.quant).model
    base = sum(parameter.numel() for parameter in model.parameters())
    add_adapter(model, chosen.adapter, seed=0)
    real = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    config = AutoConfig.from_pretrained(folder)
    found = weigh(config, chosen, torch.bfloat16, held_as(chosen))
    assert found.held == sum(real.values())
    trained = adapter_parameters(model).values()
    assert found.trained == sum(parameter.numel() for parameter in trained)
    if quant == "none":
        assert found.parameters == base


def test_modules_trained_whole_have_a_float32_copy_and_a_gradient():
    base = estimate_memory(llama(), recipe(), torch.bfloat16)
    more = estimate_memory(llama(), recipe(adapter={"modules_to_save": ["norm"]}), torch.bfloat16)
    assert more.trained - base.trained == 64
    assert more.parts["weights"] - base.parts["weights"] == 4 * 64
    assert more.parameters == base.parameters


CLASSIFIER = Head("sequence-classification", ("no", "yes"))


def classification(**sections: Any) -> Recipe:
    return recipe(**{"task": "text-classification", **sections})


@pytest.fixture
def tiny_encoder(tmp_path, tiny_tokenizer):
    """A folder of a small random BERT without a head."""
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tiny_tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def classifier(folder: Any, chosen: Recipe) -> Any:
    """Load a classifier, with adapter and head ready to be trained."""
    loaded = load_model(ModelSpec(id=str(folder), dtype="bfloat16"), chosen.quant, head=CLASSIFIER)
    adapt(loaded, chosen)
    return loaded.model.train()


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_a_classifiers_weights_and_new_head_are_counted_to_the_byte(tiny_encoder, quant):
    chosen = classification(quant={"kind": quant}, adapter={"target_modules": ["dense"]})
    model = classifier(tiny_encoder, chosen)
    real = {t.data_ptr(): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    config = AutoConfig.from_pretrained(tiny_encoder)
    found = weigh(config, chosen, torch.bfloat16, held_as(chosen), CLASSIFIER)
    assert found.held == sum(real.values())
    assert found.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("packing", [False, True])
def test_what_autograd_keeps_of_a_classifiers_rows_is_counted(tiny_encoder, packing):
    chosen = classification(
        data={"max_length": 512, "train": "-", "packing": packing},
        train={"micro_tokens": 256},
        quant={"kind": "nf4"},
    )
    model = classifier(tiny_encoder, chosen)
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # Samples are cut to the 128 tokens of the model's context.
    rows, length, segments = row_shape(chosen, packed=packing, context=128)
    assert (rows, length, segments) == ((1, 256, [128, 128]) if packing else (3, 128, [128]))
    ids = torch.ones(rows, length, dtype=torch.long)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t)
    if packing:
        positions = torch.cat([torch.arange(n) for n in segments])[None]
        inputs = {"input_ids": ids, "position_ids": positions, "segment_lengths": segments}
        with packed_rows(model), fused_layers(model), hooks:
            loss = segment_logits(model, inputs, 2).float().sum()
    else:
        with hooks:
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().sum()
    config = AutoConfig.from_pretrained(tiny_encoder)
    trace = trace_step(config, chosen, torch.bfloat16, held_as(chosen), None, CLASSIFIER)
    assert loss.requires_grad
    assert trace.kept == pytest.approx(sum(kept.values()), rel=0.03)


def test_a_decoders_classifier_keeps_no_logits_of_every_token(tiny_llama):
    config = llama(vocab_size=20_000)
    chosen = classification(data={"packing": False, "train": "-"})
    answers = estimate_memory(config, recipe(data={"packing": False}), torch.bfloat16)
    classes = estimate_memory(config, chosen, torch.bfloat16, head=CLASSIFIER)
    assert classes.parts["logits"] < answers.parts["logits"] / 2


@pytest.mark.parametrize("fused", [True, False])
def test_what_autograd_keeps_is_counted_to_the_byte(tiny_llama, fused, monkeypatch):
    if not fused:
        monkeypatch.setattr(native.build, "status", lambda: native.BuildStatus(None, "not wanted"))
        monkeypatch.setattr(native, "status", native.build.status)
    folder = tiny_llama(layers=3)
    chosen = recipe(quant={"kind": "nf4"})
    model = load_model(ModelSpec(id=str(folder), dtype="bfloat16"), chosen.quant).model
    add_adapter(model, chosen.adapter, seed=0)
    model.train()
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(1, 128, dtype=torch.long)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t)
    with packed_rows(model), fused_layers(model), hooks:
        hidden = model.base_model(
            input_ids=ids,
            use_cache=False,
            position_ids=torch.arange(128)[None],
            segment_lengths=[64, 64],
        ).last_hidden_state.flatten(0, 1)
        loss = cross_entropy_sum(hidden, plain_head(model).weight, ids.flatten())
    trace = trace_step(
        AutoConfig.from_pretrained(folder), chosen, torch.bfloat16, held_as(chosen), None
    )
    assert loss.requires_grad
    # Beside what autograd keeps are alive: the hidden states (twice, as trained positions are
    # picked), their gradient that the loss keeps itself, the token ids and positions.
    alive = 3 * 128 * 64 * 2 + 4 * 128 * 8 + 4096
    assert sum(kept.values()) <= trace.kept <= sum(kept.values()) + alive


# What dynamic NTK computes depends on positions, which have no numbers in a plan.
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "llama ntk"])
def test_rows_are_planned_as_the_run_lays_them_out(name, monkeypatch):
    model, chosen = tiny(name), recipe(quant={"kind": "none"}, adapter={"rank": 2})
    layout = exact_layout(model, packing=True, longest=chosen.data.max_length)
    planned: list[bool] = []

    def shape(*given: Any, packed: bool, **more: Any) -> Any:
        planned.append(packed)
        return row_shape(*given, packed=packed, **more)

    monkeypatch.setattr(trace_module, "row_shape", shape)
    trace_step(model.config, chosen, torch.float32, held_as(chosen), None)
    assert planned[-1] == layout.packed, layout.unpacked_because


def test_the_depth_is_extrapolated_to_what_tracing_all_of_it_gives(monkeypatch):
    for sections in ({}, {"train": {"gradient_checkpointing": True}}, {"data": {"packing": False}}):
        chosen = recipe(**sections)
        found = trace_step(llama(), chosen, torch.bfloat16, held_as(chosen), None)
        kind = "packed" if chosen.data.packing else "padded"
        whole = trace_module._trace(
            llama(), chosen, torch.bfloat16, held_as(chosen), None, rows=kind
        )
        # Temporary pieces that live across layers come in whole layers only.
        assert found.kept == pytest.approx(whole.kept, rel=0.01)
        assert found.peak == pytest.approx(whole.peak, rel=0.02)


@pytest.mark.parametrize(
    "train",
    [
        {"optimizer": "adamw"},
        {"optimizer": "adamw8bit"},
        {"optimizer": "lion"},
        {"optimizer": "adafactor"},
    ],
)
def test_optimiser_state_is_what_the_optimiser_makes(train):
    chosen = recipe(train=train)
    shapes = ((300, 64), (64,), (5, 7), (128, 96))
    parameters = {str(i): torch.nn.Parameter(torch.randn(shape)) for i, shape in enumerate(shapes)}
    optimizer = make_optimizer(chosen.train, parameters)
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    real = sum(
        tensor.nbytes
        for state in optimizer.state.values()
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor) and name != "step"
    )
    found = optimizer_bytes(chosen, shapes)
    assert found == pytest.approx(real, rel=0.002, abs=64)


def test_each_option_moves_the_part_that_it_is_about():
    base = estimate_memory(llama(), recipe(), torch.bfloat16)
    assert set(base.parts) == set(PARTS)

    def parts(**sections: Any) -> dict[str, int]:
        return dict(estimate_memory(llama(), recipe(**sections), torch.bfloat16).parts)

    assert (
        parts(train={"gradient_checkpointing": True})["activations"]
        < 0.5 * base.parts["activations"]
    )
    assert parts(train={"micro_tokens": 256})["activations"] > 1.8 * base.parts["activations"]
    assert parts(adapter={"rank": 16})["gradients"] == 4 * base.parts["gradients"]
    assert parts(quant={"kind": "none"})["weights"] > base.parts["weights"]
    assert parts(train={"paged": True})["optimizer"] == 0
    assert parts(train={"optimizer": "lion"})["optimizer"] == base.parts["optimizer"] // 2
    full = estimate_memory(
        llama(), recipe(adapter={"kind": "full"}, quant={"kind": "none"}), torch.float32
    )
    assert full.method == "full"
    assert full.parts["gradients"] == 4 * full.trained == 4 * full.parameters


def test_generating_answers_may_be_the_peak():
    chosen = recipe(
        eval={"generate": 8}, train={"micro_tokens": 64, "gradient_checkpointing": True}
    )
    wide = llama(hidden_size=1024, intermediate_size=4096, num_hidden_layers=16)
    plan = estimate_memory(wide, chosen, torch.bfloat16)
    assert any("generated" in note for note in plan.notes)


def test_a_trace_leaves_other_models_and_other_threads_alone(monkeypatch):
    config = MixtralConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    torch.manual_seed(0)
    other = MixtralForCausalLM(config).eval()
    ids = torch.arange(12)[None]
    alone = other(input_ids=ids).logits
    call, during = torch.nn.Module.__call__, []

    def loss(*given: Any) -> torch.Tensor:
        """Run the other model, whose experts the trace knows, in the middle of the trace."""
        assert torch.nn.Module.__call__ is call
        with ThreadPoolExecutor(1) as pool:
            during.append(pool.submit(lambda: other(input_ids=ids).logits).result())
        return true(*given)

    true = trace_module._loss
    monkeypatch.setattr(trace_module, "_loss", loss)
    chosen = recipe()
    trace_step(config, chosen, torch.bfloat16, held_as(chosen), None)
    assert during
    assert all(torch.equal(logits, alone) for logits in during)


def test_experts_and_other_families_are_planned_from_their_configuration():
    mixtral = MixtralConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    chosen = recipe(adapter={"target_modules": ["q_proj"]})
    two = estimate_memory(mixtral, chosen, torch.bfloat16)
    mixtral.num_experts_per_tok = 4
    four = estimate_memory(mixtral, chosen, torch.bfloat16)
    assert four.parts["activations"] > 1.2 * two.parts["activations"]
    assert four.parts["weights"] == two.parts["weights"]
    assert any("experts" in note for note in two.notes)
    small = {"vocab_size": 300, "n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 256}
    gpt2 = GPT2Config(bos_token_id=0, eos_token_id=0, **small)
    assert estimate_memory(gpt2, recipe(quant={"kind": "none"}), torch.bfloat16).total > 0


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.1-70b", "mixtral-8x7b", "qwen2.5-7b"])
def test_known_models_have_the_parameters_that_they_are_known_for(name):
    published = {
        "llama-3.1-8b": 8_030_261_248,
        "llama-3.1-70b": 70_553_706_496,
        "mixtral-8x7b": 46_702_792_704,
        "qwen2.5-7b": 7_615_616_512,
    }
    chosen = recipe(adapter={"target_modules": ["q_proj"]}, quant={"kind": "none"})
    found = weigh(config_of(ModelSpec(id=name)), chosen, torch.bfloat16, held_as(chosen))
    assert found.parameters == published[name]


def test_models_are_found_by_file_and_unknown_ones_refused(tiny_llama, tmp_path):
    folder = tiny_llama()
    assert config_of(ModelSpec(id=str(folder))).hidden_size == 64
    assert config_of(ModelSpec(id=str(folder / "config.json"))).hidden_size == 64
    with pytest.raises(ModelError, match=r"did you mean 'llama-3\.1-8b'"):
        config_of(ModelSpec(id="llama-3.1-8"))
    (tmp_path / "config.json").write_text('{"hidden_size": 4}')
    with pytest.raises(ModelError, match="names no model_type"):
        config_of(ModelSpec(id=str(tmp_path / "config.json")))
    (tmp_path / "config.json").write_text('{"model_type": "florp"}')
    with pytest.raises(ModelError, match="not understood"):
        config_of(ModelSpec(id=str(tmp_path / "config.json")))
    with pytest.raises(NoTargetMatchedError):
        estimate_memory(llama(), recipe(adapter={"target_modules": ["query"]}), torch.bfloat16)
    assert all(config_of(ModelSpec(id=name)) for name in KNOWN)


# What fits


def test_the_least_costly_change_that_fits_is_named():
    chosen = recipe(train={"micro_tokens": 512})
    wide = ModelOutline(llama(hidden_size=256, intermediate_size=1024, num_hidden_layers=16))
    needed = estimate_recipe(chosen, wide).total
    ways = {option.change: option.plan.total for option in options(chosen, wide)}
    assert ways["train.micro_tokens=64"] < needed
    assert ways["train.gradient_checkpointing=true"] < needed
    best = first_option(chosen, needed - 1000, wide)
    assert best is not None
    assert best.change == "train.micro_tokens=64"
    # Where nothing fits, what saves most.
    worst = first_option(chosen, 1, wide)
    assert worst is not None
    assert worst.plan.total == min(ways.values())


def test_a_plan_beyond_the_memory_by_more_than_its_error_is_refused():
    chosen = recipe(adapter={"kind": "full"}, quant={"kind": "none"})
    outline = ModelOutline(llama())
    plan = estimate_recipe(chosen, outline)
    require_fit(plan, chosen, plan.total, outline)
    require_fit(plan, chosen, int(plan.total / 1.05), outline)
    with pytest.raises(InsufficientMemoryError, match="of memory, most of it"):
        require_fit(plan, chosen, int(plan.total / 1.2), outline)


def test_what_the_process_holds_already_is_not_missing(monkeypatch):
    from dataclasses import replace

    from etude.core.machine import own_memory, rss, this_machine
    from etude.tuning.memory.fit import memory_at_hand
    from etude.tuning.placement import Placement

    chosen = recipe(adapter={"kind": "full"}, quant={"kind": "none"})
    outline = ModelOutline(llama())
    plan = estimate_recipe(chosen, outline)
    # The libraries, imported by now, are in the plan; files that they map count as available.
    assert 50_000_000 < own_memory() < rss()
    held = min(own_memory(), plan.parts["process"])
    machine = this_machine()

    def left(count):
        little = replace(machine, memory_available=count)
        monkeypatch.setattr("etude.tuning.placement.this_machine", lambda: little)
        return memory_at_hand(Placement.of(chosen), plan)

    # Just what the run will take beyond what it has.
    enough = left(plan.total - held)
    assert abs(enough - plan.total) < 20_000_000
    require_fit(plan, chosen, enough, outline)
    with pytest.raises(InsufficientMemoryError):
        require_fit(plan, chosen, left(max(0, int(plan.total / 1.2) - held)), outline)
    on_gpu = replace(Placement.of(chosen), device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 2 * 10**9))
    assert memory_at_hand(on_gpu, plan) == 10**9 + plan.parts["process"]


@pytest.fixture
def little_memory(monkeypatch):
    """A machine with 4 MB left."""
    from dataclasses import replace

    from etude.core.machine import this_machine

    little = replace(this_machine(), memory_available=4_000_000)
    monkeypatch.setattr("etude.tuning.placement.this_machine", lambda: little)


def test_tune_refuses_a_run_that_cannot_fit_and_says_what_to_change(
    tiny_recipe, tmp_path, little_memory
):
    chosen = Recipe.parse(tiny_recipe())
    with pytest.raises(
        InsufficientMemoryError, match=r"would take about .* --set .* --ignore-memory"
    ) as error:
        tune(chosen, base=tmp_path / "runs")
    assert "\n" not in str(error.value)
    run = tune(chosen, base=tmp_path / "runs", ignore_memory=True)
    assert run.state == "finished"
    own, others = run.summary["memory_estimate"], run.summary["other_memory_estimates"]
    assert set(own["parts"]) == set(PARTS)
    assert [other["method"] for other in others] == ["qlora", "full"]
    with open_outline(chosen.model) as outline:
        assert own == estimate_recipe(chosen, outline).as_json()
        full = estimate_recipe(chosen.with_method("full"), outline)
    assert others[1] == full.as_json()
    page = (run.folder / "report.html").read_text("utf-8")
    assert f"the estimate made before it was {size(own['total'])}" in page
    assert page.count(size(full.total)) >= 1


def test_a_run_estimates_its_own_memory_once_and_opens_its_model_once(
    tiny_recipe, tmp_path, monkeypatch
):
    """PiSSA reads the weights again that loading has quantised."""
    opened, closed, estimated = [], [], []
    open_checkpoint = load.open_checkpoint

    def opening(source):
        checkpoint = open_checkpoint(source)
        opened.append(source.name)
        close = checkpoint.close
        monkeypatch.setattr(checkpoint, "close", lambda: (closed.append(source.name), close()))
        return checkpoint

    def estimating(recipe, outline):
        estimated.append(recipe.method)
        return estimate_recipe(recipe, outline)

    monkeypatch.setattr(load, "open_checkpoint", opening)
    monkeypatch.setattr("etude.tuning.preparation.estimate_recipe", estimating)
    monkeypatch.setattr("etude.tuning.memory.fit.estimate_recipe", estimating)
    fields = tiny_recipe()
    fields["adapter"]["init"] = "pissa"
    chosen = Recipe.parse(fields)
    assert tune(chosen, base=tmp_path / "runs").state == "finished"
    assert opened == closed == [chosen.model.id]
    assert sorted(estimated) == ["full", "lora", "qlora"]


def test_files_close_with_the_last_who_reads_them_even_after_an_error(tiny_llama):
    files = load.ModelFiles(str(tiny_llama()))
    with pytest.raises(RuntimeError), files:
        checkpoint = files.checkpoint
        with files:
            assert files.checkpoint is checkpoint
        assert files.checkpoint is checkpoint
        raise RuntimeError
    with files:
        assert files.checkpoint is not checkpoint


# What this much memory can fine-tune


def test_more_memory_never_fits_less_and_a_fit_is_what_is_estimated(monkeypatch):
    examples = ("smollm2-135m", "smollm2-360m")
    monkeypatch.setattr(fits, "EXAMPLES", examples)
    small = {way: fits._estimate(examples[0], way, torch.bfloat16) for way in METHODS}
    large = {way: fits._estimate(examples[1], way, torch.bfloat16) for way in METHODS}
    for memory in (small["qlora"].total - 1, small["lora"].total, large["full"].total):
        for fit in fits.what_fits(memory, torch.bfloat16, 100.0):
            fitting = [
                estimates[fit.method].total
                for estimates in (small, large)
                if estimates[fit.method].total <= memory
            ]
            assert fit.memory == (fitting[-1] if fitting else 0)
            assert (fit.model is None) == (not fitting)


def test_generation_is_planned_with_its_cache_and_only_where_answers_are_generated():
    """The cache is that which `greedy` allocates: keys and values of every layer and position."""
    config = llama(num_hidden_layers=3, num_key_value_heads=2, num_attention_heads=4)
    chosen = recipe(eval={"generate": 4, "batch_samples": 8, "max_new_tokens": 10})
    longer = recipe(eval={"generate": 4, "batch_samples": 8, "max_new_tokens": 110})
    width = config.hidden_size // config.num_attention_heads
    assert answering_bytes(config, longer, torch.bfloat16, 1000) - answering_bytes(
        config, chosen, torch.bfloat16, 1000
    ) == 2 * (2 * 4 * 100 * 3 * 2 * width)
    many = {"generate": 64, "batch_samples": 64, "max_new_tokens": 4000}
    small = {"micro_tokens": 64, "gradient_checkpointing": True}
    with_answers = estimate_memory(config, recipe(eval=many, train=small), torch.bfloat16)
    without = estimate_memory(
        config, recipe(eval={**many, "generate": 0}, train=small), torch.bfloat16
    )
    assert any("generated" in note for note in with_answers.notes)
    assert with_answers.total > without.total
    assert not without.notes


def test_what_is_held_beside_the_run_is_counted_a_teacher_an_average_and_a_gradient():
    def estimated(**sections: Any) -> Any:
        return estimate_memory(llama(), recipe(quant={"kind": "nf4"}, **sections), torch.bfloat16)

    plain = estimated()
    taught = estimated(objective={"kind": "distill", "teacher": "self"})
    assert taught.parts["weights"] == plain.parts["weights"] + 2 * plain.parameters
    other = estimated(objective={"kind": "distill", "teacher": "another"})
    assert other.total == plain.total
    assert "the teacher, a second model in memory, is not counted" in other.notes
    averaged = estimated(train={"ema_decay": 0.9})
    assert averaged.parts["optimizer"] == plain.parts["optimizer"] + 4 * plain.trained
    noisy = estimated(train={"gradient_noise": True})
    assert noisy.parts["gradients"] == 2 * plain.parts["gradients"]
