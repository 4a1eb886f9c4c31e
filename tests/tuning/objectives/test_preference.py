"""DPO, ORPO and KTO: their formulas in float64, their gradients, and whole runs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import DataError, RunError
from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_disabled, adapter_parameters
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.objective import ObjectiveSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.data.batch import Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.evaluation import evaluate_run
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.models.load import load_model
from etude.tuning.objectives import logprobs
from etude.tuning.objectives.logprobs import answer_log_probs, log_probs
from etude.tuning.objectives.preference import (
    dpo_loss,
    kto_loss,
    log_odds,
    mismatched_partners,
    orpo_loss,
)
from etude.tuning.objectives.reference import (
    AdapterDisabledReference,
    CachedReference,
    reference_log_probs,
)
from etude.tuning.objectives.select import make_objective, objective_kind
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder

FLOATS = st.floats(-30, 30, allow_nan=False)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# The formulas, restated from the papers with plain numbers


@given(FLOATS, FLOATS, st.floats(0.01, 2), st.floats(0, 0.49))
def test_dpo_is_equation_7_with_smoothed_labels(chosen, rejected, beta, flipped):
    h = beta * (chosen - rejected)
    expected = -(1 - flipped) * math.log(sigmoid(h)) - flipped * math.log(sigmoid(-h))
    found = dpo_loss(
        torch.tensor([chosen]).double(), torch.tensor([rejected]).double(), beta, flipped
    )
    assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.floats(-20, -1e-3), st.floats(-20, -1e-3), st.floats(0, 5))
def test_orpo_is_equations_4_6_and_7(chosen, rejected, weight):
    odds_w, odds_l = (math.exp(p) / (1 - math.exp(p)) for p in (chosen, rejected))
    expected = -chosen - weight * math.log(sigmoid(math.log(odds_w / odds_l)))
    pair = torch.tensor([[chosen], [rejected]], dtype=torch.float64)
    assert float(orpo_loss(pair[0], pair[1], weight)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(FLOATS, st.booleans(), st.floats(0, 20), st.floats(0.01, 2), st.floats(0.1, 3))
def test_kto_is_equations_7_and_8(reward, desirable, kl, beta, weight):
    value = sigmoid(beta * (reward - kl)) if desirable else sigmoid(beta * (kl - reward))
    weights = (weight, 1.0) if desirable else (1.0, weight)
    rewards = torch.tensor([reward], dtype=torch.float64)
    found = kto_loss(rewards, torch.tensor([desirable]), kl, beta, *weights)
    assert float(found) == pytest.approx(weight * (1 - value), rel=1e-9, abs=1e-12)


def test_the_losses_have_the_numerical_gradients():
    a = torch.tensor([-3.0, -1.0, -0.2], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([-2.0, -1.5, -4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: dpo_loss(a, b, 0.3, 0.1), (a, b))
    assert torch.autograd.gradcheck(lambda a, b: orpo_loss(a, b, 0.7), (a, b))
    desirable = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda a: kto_loss(a, desirable, 0.4, 0.3, 1.5, 0.5), (a,))


def test_a_model_that_is_sure_of_every_token_has_finite_odds():
    sure = torch.tensor([0.0, -1e-30, -1e-9], requires_grad=True)
    odds = log_odds(sure)
    odds.sum().backward()
    assert odds.isfinite().all()
    assert sure.grad.isfinite().all()


# Log-probabilities


@given(st.integers(1, 200), st.integers(1, 9), st.integers(2, 40), st.booleans())
def test_log_probabilities_and_gradients_are_those_of_the_full_logits(n, hidden, vocab, frozen):
    generator = torch.Generator().manual_seed(n * hidden * vocab)
    h = torch.randn(n, hidden, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(vocab, hidden, generator=generator, dtype=torch.float64)
    w.requires_grad_(not frozen)
    y = torch.randint(vocab, (n,), generator=generator)
    upstream = torch.randn(n, generator=generator, dtype=torch.float64)
    found = log_probs(h, w, y)
    full = (h @ w.T).log_softmax(1).gather(1, y[:, None]).squeeze(1)
    torch.testing.assert_close(found, full, rtol=1e-12, atol=1e-12)
    inputs = [h] if frozen else [h, w]
    ours = torch.autograd.grad(found, inputs, upstream)
    theirs = torch.autograd.grad(full, inputs, upstream)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


def test_gradcheck_accepts_both_backward_passes(monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK", 2)
    h = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randint(7, (5,))
    assert torch.autograd.gradcheck(lambda h, w: log_probs(h, w, y), (h, w))
    assert torch.autograd.gradcheck(lambda h: log_probs(h, w.detach(), y), (h,))


# The objectives on a model


def sample(generator, prompt, answer, origin, **more) -> EncodedSample:
    ids = generator.integers(3, 500, prompt + answer).astype(np.int32)
    trained = np.repeat([False, True], [prompt, answer])
    return EncodedSample(ids, trained, origin, **more)


def pairs(count: int, seed: int = 0) -> list[EncodedSample]:
    generator = np.random.default_rng(seed)
    found = []
    for i in range(count):
        prompt = int(generator.integers(2, 9))
        worse = sample(generator, prompt, int(generator.integers(1, 9)), f"rows:{i}")
        better = sample(
            generator, prompt, int(generator.integers(1, 9)), f"rows:{i}", rejected=worse
        )
        worse.input_ids[:prompt] = better.input_ids[:prompt]
        found.append(better)
    return found


def unpaired(count: int, seed: int = 0) -> list[EncodedSample]:
    generator = np.random.default_rng(seed)
    return [
        sample(
            generator,
            int(generator.integers(2, 9)),
            int(generator.integers(1, 9)),
            f"rows:{i}",
            desirable=bool(i % 3),
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def tuned(tiny_llama):
    """A tiny model in float64 whose adapter has learnt something."""
    model = load_model(
        ModelSpec(id=str(tiny_llama()), dtype="float32"), QuantSpec(kind="none")
    ).model
    model.double()
    add_adapter(model, AdapterSpec(rank=4, alpha=8), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator).double()
    return model


def naive_log_prob(model, one: EncodedSample) -> torch.Tensor:
    """log π(y|x), one conversation at a time, all logits at once."""
    ids = torch.from_numpy(one.input_ids).long()[None]
    logs = model(input_ids=ids).logits[0, :-1].log_softmax(1)
    picked = logs.gather(1, ids[0, 1:, None]).squeeze(1)
    return picked[torch.from_numpy(one.trained[1:])].sum()


def naive_loss(kind, spec, model, samples, partners=None):
    """The step's loss as the papers have it."""

    def ratio(one):
        with torch.no_grad(), adapter_disabled(model):
            before = naive_log_prob(model, one)
        return naive_log_prob(model, one) - before

    if kind == "dpo":
        each = [-F.logsigmoid(spec.beta * (ratio(s) - ratio(s.rejected))) for s in samples]
    elif kind == "orpo":
        means = [[naive_log_prob(model, o) / o.trained_tokens for o in s.sides] for s in samples]
        odds = [[p - torch.log(1 - p.exp()) for p in pair] for pair in means]
        each = [
            -pair[0] - spec.odds_weight * F.logsigmoid(odd[0] - odd[1])
            for pair, odd in zip(means, odds, strict=True)
        ]
    else:
        with torch.no_grad():
            kl = torch.stack([ratio(partners[s]) for s in samples]).mean().clamp(min=0)
        each = [
            spec.desirable_weight * (1 - torch.sigmoid(spec.beta * (ratio(s) - kl)))
            if s.desirable
            else spec.undesirable_weight * (1 - torch.sigmoid(spec.beta * (kl - ratio(s))))
            for s in samples
        ]
    return torch.stack(each).mean()


@pytest.mark.parametrize("kind", ["dpo", "orpo", "kto"])
@pytest.mark.parametrize("cuts", [[7], [3, 4], [1, 1, 5]])
@pytest.mark.parametrize("packing", [True, False])
def test_a_step_has_the_papers_loss_and_gradient_however_it_is_cut(tuned, kind, cuts, packing):
    samples = unpaired(7) if kind == "kto" else pairs(7)
    spec = ObjectiveSpec(kind=kind, beta=0.3, odds_weight=0.7, desirable_weight=1.3)
    objective = make_objective(spec, samples, [], seed=0)
    edges = np.cumsum([0, *cuts])
    rows = [samples[a:b] for a, b in pairwise(edges)]
    parameters = list(adapter_parameters(tuned).values())
    for parameter in parameters:
        parameter.grad = None
    loss = 0.0
    with packed_rows(tuned):
        batches = [Batch(row, Layout(packing)) for row in rows]
        values = objective.step_values(tuned, batches)
        for batch in batches:
            part = objective.loss(tuned, batch, values).total / objective.normalizer(samples)
            part.backward()
            loss += float(part.detach())
    expected = naive_loss(kind, spec, tuned, samples, getattr(objective, "partners", None))
    wanted = torch.autograd.grad(expected, parameters)
    assert loss == pytest.approx(float(expected), rel=1e-9)
    # Float64 throughout, sums in another order.
    for parameter, gradient in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-7, atol=1e-11)


def test_numbers_kept_before_training_are_those_of_the_adapter_switched_off(tuned):
    samples = [side for pair in pairs(5) for side in pair.sides]
    with packed_rows(tuned):
        live = AdapterDisabledReference().log_probs(tuned, Batch(samples))
    with adapter_disabled(tuned):
        kept = reference_log_probs(tuned, samples, 64, _Silent())
    torch.testing.assert_close(CachedReference(kept).log_probs(tuned, Batch(samples)), live)
    with pytest.raises(RunError, match=r"rows:0.*was not cached"):
        CachedReference({}).log_probs(tuned, Batch(samples))
    with packed_rows(tuned):
        assert not torch.allclose(answer_log_probs(tuned, Batch(samples)), live, atol=1e-3)


class _Silent:
    def start(self, label, total, unit=""): ...

    def advance(self, count): ...

    def finish(self): ...


def test_mismatched_answers_belong_to_other_prompts_and_repeat():
    samples = unpaired(9)
    partners, again = mismatched_partners(samples, 3), mismatched_partners(samples, 3)
    taken = set()
    for one in samples:
        crossed = partners[one]
        prompt = int(one.trained.argmax())
        assert np.array_equal(crossed.input_ids[:prompt], one.input_ids[:prompt])
        assert not np.array_equal(crossed.input_ids, one.input_ids)
        assert np.array_equal(crossed.input_ids, again[one].input_ids)
        taken.add(crossed.input_ids[prompt:].tobytes())
    assert len(taken) == 9  # every answer serves once


# Which objective


@pytest.mark.parametrize(
    ("kind", "samples", "message"),
    [
        ("dpo", unpaired(3), "dpo requires pairs of answers"),
        ("orpo", unpaired(3), "orpo requires pairs"),
        ("kto", pairs(3), "kto requires unpaired preferences"),
        ("sft", unpaired(3), "would also train undesirable answers"),
        ("auto", [*pairs(2), *unpaired(2)], "separate them"),
        ("kto", unpaired(1), "only this one"),
    ],
)
def test_data_that_an_objective_cannot_learn_from_are_named(kind, samples, message):
    with pytest.raises(DataError, match=message) as error:
        make_objective(ObjectiveSpec(kind=kind), samples, [], seed=0)
    assert "\n" not in str(error.value)


def test_the_data_say_which_objective_is_meant():
    plain = [sample(np.random.default_rng(0), 3, 4, "rows:1")]
    assert objective_kind(ObjectiveSpec(), pairs(2)) == "dpo"
    assert objective_kind(ObjectiveSpec(), unpaired(2)) == "kto"
    assert objective_kind(ObjectiveSpec(), plain) == "sft"
    assert objective_kind(ObjectiveSpec(kind="sft"), pairs(2)) == "sft"


# Whole runs


def _rows(path, kind):
    """Polite answers are better; the prompts are all different."""
    words = ("sort", "find", "list", "map", "key", "value", "node", "edge")
    lines = []
    for i in range(48):
        prompt = f"How do I {words[i % 8]} the {words[i * 5 % 8]} number {i}?"
        better, worse = f"Please {words[i % 8]} it.", f"No, {words[i * 3 % 8]} nothing."
        if kind == "kto":
            answer = worse if i % 2 else better
            lines.append({"prompt": prompt, "completion": answer, "label": not i % 2})
        else:
            lines.append({"prompt": prompt, "chosen": better, "rejected": worse})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


def _fields(tiny_recipe, tmp_path, kind, **sections):
    return tiny_recipe(
        data={"train": _rows(tmp_path / f"{kind}.jsonl", kind), "eval_fraction": 0.25},
        train={"epochs": 4, "lr": 3e-3, "eval_every": 5, **sections.pop("train", {})},
        objective={"kind": kind},
        **sections,
    )


def _losses(folder):
    return [r["loss"] for r in RunFolder.open(folder).read_metrics() if "loss" in r]


@pytest.mark.parametrize("quant", ["none", "nf4"])
@pytest.mark.parametrize("kind", ["dpo", "orpo", "kto"])
def test_a_run_learns_what_is_preferred(tiny_recipe, tmp_path, kind, quant):
    fields = _fields(tiny_recipe, tmp_path, kind, quant={"kind": quant})
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    summary = run.summary
    assert summary["objective"] == kind
    assert summary["eval_loss"] < 0.9 * summary["eval_loss_before"]
    assert summary["accuracy"] > 0.9
    assert summary["margin"] > summary["margin_before"] + 0.1
    if kind == "dpo":
        assert summary["accuracy_before"] == 0.5
        assert summary["eval_loss_before"] == pytest.approx(math.log(2))
    records = RunFolder.open(run.folder).read_metrics()
    assert {"accuracy", "margin", "reward_chosen"} <= records[0].keys()
    assert any("eval_margin" in record for record in records)
    page = (run.folder / "report.html").read_text("utf-8")
    assert "Preference accuracy" in page
    assert "Reward margin" in page
    again = evaluate_run(RunFolder.open(run.folder), base=True, generate=0)
    assert again["tuned"]["loss"] == pytest.approx(summary["eval_loss"], rel=1e-5)
    assert again["tuned"]["accuracy"] == summary["accuracy"]
    assert again["base"]["loss"] == pytest.approx(summary["eval_loss_before"], rel=1e-5)
    assert "perplexity" not in again["tuned"]
    file = _rows(tmp_path / "other.jsonl", kind)
    other = evaluate_run(RunFolder.open(run.folder), data=tmp_path / "other.jsonl", generate=0)
    assert file.endswith("other.jsonl")
    assert other["tuned"]["samples"] == 48
    assert other["tuned"]["accuracy"] > 0.9


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_full_fine_tuning_keeps_what_the_base_gave_the_answers(tiny_recipe, tmp_path, kind):
    fields = _fields(tiny_recipe, tmp_path, kind, adapter={"kind": "full"})
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    assert run.summary["accuracy"] > 0.9
    assert run.summary["eval_loss"] < 0.9 * run.summary["eval_loss_before"]
    again = evaluate_run(RunFolder.open(run.folder), generate=0)
    assert again["tuned"]["loss"] == pytest.approx(run.summary["eval_loss"], rel=1e-3)
    _rows(tmp_path / "other.jsonl", kind)
    text = (tmp_path / "other.jsonl").read_text("utf-8").replace("How do I", "Could you")
    (tmp_path / "other.jsonl").write_text(text, "utf-8")
    with pytest.raises(RunError, match="was not cached"):
        evaluate_run(RunFolder.open(run.folder), data=tmp_path / "other.jsonl", generate=0)


@pytest.mark.parametrize("kind", ["dpo", "kto"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_killed_run_of_preferences_repeats_its_curve(tiny_recipe, tmp_path, kind, adapter):
    more = {"dropout": 0.1} if adapter == "lora" else {"kind": "full"}
    fields = _fields(tiny_recipe, tmp_path, kind, adapter=more, train={"epochs": 8})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(fields), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "tune", str(recipe), "--runs", str(tmp_path / "a"), "-q"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder, end = None, time.monotonic() + 120
    while time.monotonic() < end and folder is None:
        assert process.poll() is None, process.stderr.read()
        for metrics in (tmp_path / "a").glob("tiny-*/metrics.jsonl"):
            folder = metrics.parent if len(_losses(metrics.parent)) >= 8 else None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = len(_losses(folder))
    resumed = tune(Recipe.read(folder / "recipe.yaml"), resume=RunFolder.open(folder))
    whole = tune(Recipe.parse(fields), base=tmp_path / "b")
    assert done < len(_losses(whole.folder))
    assert _losses(resumed.folder) == _losses(whole.folder)
    assert resumed.summary["eval_loss"] == whole.summary["eval_loss"]


def test_a_recipe_whose_objective_does_not_fit_its_data_fails_in_one_line(tiny_recipe, tmp_path):
    fields = {**tiny_recipe(), "objective": {"kind": "dpo"}}
    with pytest.raises(DataError, match=r"rows\.jsonl:\d+: objective\.kind dpo requires pairs"):
        tune(Recipe.parse(fields), base=tmp_path / "runs")
