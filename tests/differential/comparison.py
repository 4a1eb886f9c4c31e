"""Comparison of one configuration with transformers and PEFT, in float64.

An arithmetic of few bits allows no fixed distance from the truth: it depends on the model. So the
measure is PEFT itself in the same arithmetic. Two programs that compute the same sums in another
order are each some rounding away from float64; ours may be `TIMES` as far as PEFT's, plus `FLOOR`
units of the arithmetic, since a distance of zero can be luck.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import etude_side
import peft_side
import torch
from configurations import Configuration
from fuzzed_models import samples_of, write_base
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging as hf_logging

from etude.tuning.adapters.merge import merge_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.adapters.save import load_adapter, save_adapter
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.generation.greedy import generate
from etude.tuning.models.unquantized import UnquantizedWeights
from etude.tuning.objectives.base import SFT
from etude.tuning.training.evaluate import evaluate

TIMES = 4
FLOOR = 32
UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-9}


class Failure(AssertionError):  # noqa: N818 - what a comparison ends in, not an error of it
    """A configuration whose numbers disagree."""


class _Checks:
    """Distances from the truth, each allowed what PEFT's own is."""

    def __init__(self, configuration: Configuration) -> None:
        self.unit = UNIT[configuration.dtype]

    def near(self, what: str, ours: float, theirs: float, times: float = TIMES) -> None:
        allowed = times * theirs + FLOOR * self.unit
        if not ours <= allowed:
            raise Failure(f"{what}: {ours:.3g} from float64, PEFT's {theirs:.3g}")


def distance(found: Tensor | float, true: Tensor | float) -> float:
    """Return the relative distance of two tensors."""
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (found, true))
    norm = float(b.norm())
    return float((a - b).norm()) / norm if norm else float(a.norm())


def compare(configuration: Configuration) -> None:
    """Compare a configuration with PEFT.

    Raises:
        Failure: the numbers disagree; the message says which.
    """
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    folder = Path(tempfile.mkdtemp(prefix="differential-"))
    try:
        write_base(configuration, folder / "base")
        if configuration.written_by == "etude":
            _compare_ours(configuration, folder)
        else:
            _compare_theirs(configuration, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compare_ours(configuration: Configuration, folder: Path) -> None:
    checks, samples = _Checks(configuration), samples_of(configuration)
    dtype = getattr(torch, configuration.dtype)
    loaded = etude_side.adapted(configuration, folder / "base")
    model = loaded.model
    save_adapter(model, folder / "ours", etude_side.spec_of(configuration), loaded.origin)
    if configuration.added:
        for saved in ("ours", "trained", "theirs"):
            loaded.tokenizer.save_pretrained(folder / saved)

    def reference(kind: torch.dtype) -> Any:
        base = peft_side.base_like(model, folder / "base", kind)
        return peft_side.with_adapter(base, folder / "ours", kind)

    truth, peer = reference(torch.float64), reference(dtype)
    true_logits = peft_side.logits(truth, samples)
    own = distance(peft_side.logits(peer, samples), true_logits)
    checks.near("logits", distance(peft_side.logits(model, samples), true_logits), own)
    _training(configuration, checks, model, truth, peer)
    _evaluation(configuration, checks, model, truth, peer)
    _generation(configuration, model, truth)
    # The same files again, after the steps: written by both, read by the other.
    spec = etude_side.spec_of(configuration)
    save_adapter(model, folder / "trained", spec, loaded.origin)
    base = peft_side.base_like(model, folder / "base", torch.float64)
    truth = peft_side.with_adapter(base, folder / "trained", torch.float64)
    true_logits = peft_side.logits(truth, samples)
    again = _read(configuration, folder / "base", folder / "trained")
    checks.near("read again", distance(peft_side.logits(again, samples), true_logits), own)
    if configuration.init not in ("pissa", "olora", "loftq"):
        peer = peft_side.with_adapter(
            peft_side.base_like(model, folder / "base", dtype), folder / "trained", dtype
        )
        peer.save_pretrained(folder / "theirs")
        read = _read(configuration, folder / "base", folder / "theirs")
        checks.near("PEFT's file", distance(peft_side.logits(read, samples), true_logits), own)
    _merge(configuration, folder, folder / "trained", truth)


def _training(
    configuration: Configuration, checks: _Checks, model: Any, truth: Any, peer: Any
) -> None:
    samples, trained = samples_of(configuration), adapter_parameters(model)
    if configuration.checkpointing:
        model.train()
        options = {"use_reentrant": False}
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    found, gradients, counted = etude_side.loss_and_gradients(model, configuration, samples)
    _what_ran_fused(configuration, counted)
    losses = [peft_side.loss(one, samples) for one in (truth, peer)]
    checks.near(
        "loss",
        distance(found, float(losses[0])),
        distance(float(losses[1]), float(losses[0])),
    )
    if configuration.kind == "adalora":
        return
    for loss in losses:
        loss.backward()
    true, theirs = (peft_side.gradients(one, list(trained), gradients) for one in (truth, peer))
    every = [torch.cat([g.double().flatten() for g in one.values()]) for one in (gradients, theirs)]
    whole = torch.cat([g.flatten() for g in true.values()])
    checks.near("gradient", distance(every[0], whole), distance(every[1], whole))
    for name in trained:
        # One that is nearly zero is all rounding, of terms as large as those of the others.
        scale = max(float(true[name].norm()), 0.03 * float(whole.norm()))
        ours, peers = (
            float((one[name].double() - true[name]).norm()) / scale for one in (gradients, theirs)
        )
        checks.near(f"gradient of {name}", ours, peers, 2 * TIMES)
    before = [torch.cat([p.detach().double().flatten() for p in trained.values()])]
    etude_side.steps(model, configuration, samples)
    for one in (truth, peer):
        one.zero_grad()
        peft_side.steps(one, samples, gradients)
    after = torch.cat([p.detach().double().flatten() for p in trained.values()])
    assert float((after - before[0]).norm()) > 0, "the steps moved something"
    ends = [float(peft_side.loss(one, samples)) for one in (truth, peer)]
    ours = float(etude_side.loss_and_gradients(model, configuration, samples)[0])
    checks.near("loss after three steps", distance(ours, ends[0]), distance(ends[1], ends[0]))
    if configuration.checkpointing:
        model.activation_checkpointing_disable()
        model.eval()


def _what_ran_fused(configuration: Configuration, counted: etude_side.Counted) -> None:
    if counted.fusion is None:
        if counted.ran:
            raise Failure("a layer ran fused that was not to be")
        return
    said = counted.fusion
    runs = 2 if configuration.checkpointing else 1
    if counted.ran != runs * said.fused:
        raise Failure(f"{said.fused} fused layers were claimed, {counted.ran} ran")
    if said.fused < said.layers and not said.reason:
        raise Failure("no reason why layers are not fused")
    if etude_side.to_be_fused(configuration) and said.fused != 2:
        raise Failure(f"{said.fused} of 2 layers are fused: {said.reason}")


def _evaluation(
    configuration: Configuration, checks: _Checks, model: Any, truth: Any, peer: Any
) -> None:
    samples = samples_of(configuration)
    if configuration.kind == "adalora":
        return
    with etude_side.rows(model, configuration) as (layout, _):
        found = evaluate(model, SFT(), samples, 64, layout=layout).loss
    with torch.no_grad():
        true, own = (float(peft_side.loss(one, samples)) for one in (truth, peer))
    checks.near("evaluation", distance(found, true), distance(own, true))


def _generation(configuration: Configuration, model: Any, truth: Any) -> None:
    if configuration.kind == "adalora":
        return
    prompts = [[int(i) for i in s.input_ids[:6]] for s in samples_of(configuration)[:2]]
    answers = generate(model.eval(), prompts, [0], max_new_tokens=6)
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            ids = torch.tensor([*prompt, *answer])[None]
            row = truth(input_ids=ids, use_cache=False).logits[0]
        at = row[len(prompt) - 1 : -1]
        chosen = at.gather(1, torch.tensor(answer)[:, None]).squeeze(1)
        behind = float((at.amax(1) - chosen).max())
        # Each token is the likeliest by float64, or as good as that: within the logits' rounding.
        if not behind <= 256 * UNIT[configuration.dtype] * float(row.abs().max()):
            raise Failure(f"generation: a token is {behind:.3g} less likely than another")
        if len(answer) < 6 and answer[-1] != 0:
            raise Failure("generation: an answer ended without its end")


def _read(configuration: Configuration, base: Path, adapter: Path) -> Any:
    loaded = etude_side.load(configuration, base)
    with UnquantizedWeights(loaded.files) as original:
        load_adapter(loaded.model, adapter, original=original)
    return loaded.model


def _merge(configuration: Configuration, folder: Path, adapter: Path, truth: Any) -> None:
    spec = ModelSpec(id=str(folder / "base"), dtype=configuration.dtype)
    merge_adapter(spec, adapter, folder / "merged", dtype=configuration.dtype)
    merged = AutoModelForCausalLM.from_pretrained(
        folder / "merged", dtype=torch.float64, **peft_side.PLAIN
    ).eval()
    samples = samples_of(configuration)
    want, found = peft_side.logits(truth, samples), peft_side.logits(merged, samples)
    # Both in float64: what is left is one rounding of each merged weight, by half a unit, which
    # reaches the logits through two layers as a few of them.
    if not (far := distance(found, want)) <= 32 * UNIT[configuration.dtype]:
        raise Failure(f"merged: {far:.3g} from base and adapter")


def _compare_theirs(configuration: Configuration, folder: Path) -> None:
    checks, samples = _Checks(configuration), samples_of(configuration)
    peer = peft_side.made_by_peft(configuration, folder / "base", folder / "theirs")
    dtype = getattr(torch, configuration.dtype)
    plain = etude_side.load(configuration, folder / "base").model

    def reference(kind: torch.dtype) -> Any:
        base = peft_side.base_like(plain, folder / "base", kind)
        return peft_side.with_adapter(base, folder / "theirs", kind)

    truth = reference(torch.float64)
    true_logits = peft_side.logits(truth, samples)
    made = distance(peft_side.logits(peer, samples), true_logits)
    if configuration.dtype == "float32" and not made < 1e-3:
        raise Failure(f"PEFT reads its own file as something else: {made:.3g}")
    own = distance(peft_side.logits(reference(dtype), samples), true_logits)
    again = _read(configuration, folder / "base", folder / "theirs")
    checks.near("logits", distance(peft_side.logits(again, samples), true_logits), own)
    with etude_side.rows(again, configuration) as (layout, _):
        found = evaluate(again, SFT(), samples, 64, layout=layout).loss
    with torch.no_grad():
        true = float(peft_side.loss(truth, samples))
        theirs = float(peft_side.loss(reference(dtype), samples))
    checks.near("evaluation", distance(found, true), distance(theirs, true))
    _generation(configuration, again, truth)
    _merge(configuration, folder, folder / "theirs", truth)


def failure_of(configuration: Configuration) -> str | None:
    """Return what is wrong with a configuration in one line; None: nothing."""
    try:
        compare(configuration)
    except Exception as error:  # whatever it is, it is a finding
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None


def shrunk(configuration: Configuration, kind: str) -> Configuration:
    """Drop options one by one while it still fails in the same way; return what is left."""
    smaller = True
    while smaller:
        smaller = False
        for one in configuration.simpler():
            found = failure_of(one)
            if found is not None and _kind(found) == kind:
                configuration, smaller = one, True
                break
    return configuration


def _kind(failure: str) -> str:
    return failure.partition(":")[0]
