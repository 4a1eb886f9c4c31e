"""Sampling by a seed: how often a token comes, what a nucleus leaves out, and whole answers."""

from __future__ import annotations

import pytest
import torch

from etude.tuning.adapters.inject import add_adapter
from etude.tuning.adapters.multi_adapter import adapter_parameters
from etude.tuning.adapters.save import save_adapter
from etude.tuning.config.recipe import Recipe
from etude.tuning.generation.sampling import SeededSampling
from etude.tuning.models.load import load_model
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder

LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0, -4.0]])


def frequencies(sampling: SeededSampling, draws: int) -> torch.Tensor:
    tokens = torch.cat([sampling(None, LOGITS).argmax(-1) for _ in range(draws)])
    return torch.bincount(tokens, minlength=LOGITS.shape[1]).double() / draws


def assert_drawn_from(found: torch.Tensor, expected: torch.Tensor, draws: int) -> None:
    # Five standard deviations of a frequency; of one that is 0, no draw at all.
    allowed = 5 * (expected * (1 - expected) / draws).sqrt()
    assert ((found - expected).abs() <= allowed).all(), (found, expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probability_says(temperature):
    found = frequencies(SeededSampling(temperature, seed=1), 20_000)
    assert_drawn_from(found, (LOGITS[0].double() / temperature).softmax(0), 20_000)


@pytest.mark.parametrize(("top_p", "kept"), [(0.3, 1), (0.7, 2), (0.95, 3), (1.0, 5)])
def test_a_nucleus_is_the_fewest_tokens_that_have_this_probability(top_p, kept):
    # softmax(LOGITS): 0.608, 0.224, 0.136, 0.030, 0.002
    expected = LOGITS[0].double().softmax(0)
    expected[kept:] = 0
    found = frequencies(SeededSampling(1.0, top_p, seed=2), 20_000)
    assert_drawn_from(found, expected / expected.sum(), 20_000)


def test_the_same_seed_gives_the_same_draws_and_another_one_others():
    many = torch.zeros(1, 10_000)

    def draws(seed):
        sampling = SeededSampling(1.0, seed=seed)
        return [int(sampling(None, many).argmax()) for _ in range(5)]

    assert draws(7) == draws(7) != draws(8)
    assert draws(None) != draws(None)


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, 1.1)]
)
def test_what_is_no_temperature_or_share_is_refused(temperature, top_p):
    with pytest.raises(ValueError, match="temperature"):
        SeededSampling(temperature, top_p)


@pytest.fixture(scope="module")
def tuned(tiny_llama, tmp_path_factory):
    """A run whose adapter visibly changes the base."""
    recipe = Recipe.parse(
        {
            "model": {"id": str(tiny_llama()), "dtype": "float32"},
            "adapter": {"rank": 4},
            "data": {"train": "none.jsonl"},
        }
    )
    folder = RunFolder.create("small", tmp_path_factory.mktemp("runs"))
    folder.recipe.write_text(recipe.to_yaml(), "utf-8")
    loaded = load_model(recipe.model, recipe.quant)
    add_adapter(loaded.model, recipe.adapter, seed=0)
    with torch.no_grad():
        for parameter in adapter_parameters(loaded.model).values():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    save_adapter(loaded.model, folder.adapter, recipe.adapter, loaded.origin)
    return load(folder)


def test_answers_are_the_same_for_a_seed_whatever_came_before(tuned):
    def said(seed, **options):
        return tuned.reply("def f(x):", max_new_tokens=24, temperature=0.9, seed=seed, **options)

    first, base = said(3), said(3, tuned=False)
    torch.manual_seed(99)
    assert said(3) == first and said(3, tuned=False) == base
    assert said(4) != first
    assert base != first
    assert said(3, top_p=1e-9) == tuned.reply("def f(x):", max_new_tokens=24)


def test_sampling_neither_reads_nor_moves_torchs_own_generator(tuned):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tuned.reply("def f(x):", max_new_tokens=4, temperature=1.0, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
