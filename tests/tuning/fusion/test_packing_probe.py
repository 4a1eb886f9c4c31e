"""Whether packing is exact is tried on the model, not believed of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, tiny

from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.forward_probe import called_targets, logits_are_plain
from etude.tuning.fusion.packing_probe import exact_layout, packs_exactly
from etude.tuning.models.meta_model import quantizable_linears
from etude.tuning.objectives.base import SFT
from etude.tuning.quant.build import quantized
from etude.tuning.training.evaluate import evaluate

PACKS = {
    *("llama", "mistral", "qwen3", "gpt2", "gpt_neox", "phi3", "gemma2", "gemma3_text"),
    *("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "granite", "granitemoe", "cohere"),
    "phi3 longrope",  # 60 tokens are within its original context
    "llama ntk",
}
ODD = {"cohere", "falcon_h1", "gemma2", "granite"}
"""Those whose logits are not hidden @ Wᵀ."""


def _samples(lengths: tuple[int, ...]) -> list[EncodedSample]:
    generator = np.random.default_rng(0)
    made = []
    for length in lengths:
        ids = generator.integers(3, 290, length).astype(np.int32)
        made.append(EncodedSample(ids, np.arange(length) >= 3, f"row {length}"))
    return made


def _loss_alone(model, samples) -> float:
    """Mean cross-entropy of the trained tokens, each sample alone through transformers, float64."""
    total, count = 0.0, 0
    for sample in samples:
        ids = torch.tensor(sample.input_ids, dtype=torch.long)
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0].double()
        wanted = torch.tensor(np.nonzero(sample.trained)[0])
        total += float(
            torch.nn.functional.cross_entropy(logits[wanted - 1], ids[wanted], reduction="sum")
        )
        count += len(wanted)
    return total / count


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_evaluation_gives_the_loss_of_samples_alone(name):
    model = tiny(name)
    samples = _samples((13, 60, 20, 17))
    layout = exact_layout(model, packing=True, longest=60)
    assert layout.packed == (name in PACKS), layout.unpacked_because
    found = evaluate(model, SFT(), samples, 256, layout=layout).loss
    # Sums of float32 in another order: some 10⁻⁶ of the loss, as between any two batch sizes; the
    # smallest leak among these models, Falcon-H1's, was 10⁻⁴ of it.
    assert found == pytest.approx(_loss_alone(model, samples), rel=5e-6)


@pytest.mark.parametrize("name", ["falcon_h1", "lfm2", "stablelm", "doge", "mixtral", "llama"])
def test_a_leak_smaller_than_rounding_is_found_in_bfloat16(name):
    assert (packs_exactly(tiny(name, torch.bfloat16)) is None) == (name in PACKS)


def test_a_chunk_longer_than_the_probes_samples_is_found():
    # 256 positions; 60 tokens alone would not show it.
    assert "256 positions" in packs_exactly(tiny("llama4_text"))


@pytest.mark.parametrize("name", ["phi3 longrope", "llama ntk"])
def test_angles_that_depend_on_the_longest_sample_are_found(name):
    model = tiny(name)
    assert packs_exactly(model, longest=60) is None
    samples = _samples((13, 100, 20))
    layout = exact_layout(model, packing=True, longest=100)
    assert layout.alone and "longest sample of its row" in layout.unpacked_because
    assert evaluate(model, SFT(), samples, 256, layout=layout).loss == pytest.approx(
        _loss_alone(model, samples), rel=5e-6
    )


def test_a_stray_window_in_a_llamas_config_has_no_effect_as_in_transformers():
    model = tiny("llama", sliding_window=8)
    samples = _samples((40, 30))
    assert evaluate(model, SFT(), samples, 256).loss == pytest.approx(
        _loss_alone(model, samples), rel=5e-6
    )


class Remembers(torch.nn.Module):
    """A norm that remembers what it saw: in an attribute, and in statistics of training."""

    def __init__(self, inner: torch.nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.statistics = inner, torch.nn.BatchNorm1d(width)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.cache = x
        return self.inner(self.statistics(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize("name", ["llama ntk", "qwen3_next", "gemma2", "mamba2"])
def test_the_probes_leave_no_trace_and_nobodys_hooks_see_them(name):
    model = tiny(name, attention_dropout=0.5).train()
    trunk = model.base_model
    last = "norm_f" if hasattr(trunk, "norm_f") else "norm"
    setattr(trunk, last, Remembers(getattr(trunk, last), 64))
    seen: list[object] = []

    def note(module, *given):
        seen.append(module)

    hook_of_all = torch.nn.modules.module.register_module_forward_hook(note)
    hooks = [hook for m in model.modules() for hook in _hooked(m, note)]
    random = torch.get_rng_state()
    values = {path: value.clone() for path, value in model.named_buffers()}
    before = {path: dict(vars(m)) for path, m in model.named_modules()}
    try:
        packs_exactly(model, longest=100)
        logits_are_plain(model)
        called_targets(model, "all-linear")
        assert not seen
        assert torch.equal(random, torch.get_rng_state())
        for path, value in model.named_buffers():
            assert torch.equal(value, values[path]), path
        for path, module in model.named_modules():
            now = vars(module)
            assert now.keys() == before[path].keys()
            assert all(now[key] is value for key, value in before[path].items()), path
        # The user's hooks are where they were: they see the next pass, thrice each module.
        model(input_ids=torch.arange(5, 20)[None], use_cache=False)
        assert seen.count(model) == 3
    finally:
        for hook in [hook_of_all, *hooks]:
            hook.remove()
    seen.clear()
    model(input_ids=torch.arange(5, 20)[None], use_cache=False)
    assert not seen


def _hooked(module, note):
    return module.register_forward_hook(note), module.register_forward_pre_hook(note)


def test_a_model_that_rounds_its_inputs_to_8_bits_packs():
    model = tiny("llama")
    for path, linear in quantizable_linears(model).items():
        spec = QuantSpec(kind="int8")
        model.set_submodule(path, quantized(linear.weight, spec, torch.float32, linear.bias))
    assert packs_exactly(model) is None


@pytest.mark.parametrize("name", ["llama", "gpt2", "mamba", *sorted(ODD)])
def test_scaled_and_capped_logits_are_found_whatever_their_option_is_called(name):
    assert logits_are_plain(tiny(name)) == (name not in ODD)
