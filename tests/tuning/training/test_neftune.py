"""NEFTune's noise: the formula of transformers, and the sample's own length in any layout."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification
from transformers.integrations.neftune import neftune_post_forward_hook

from etude.tuning.config.recipe import Recipe
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.fusion.packed_heads import segment_logits
from etude.tuning.fusion.patch import fused_layers
from etude.tuning.pipeline import tune
from etude.tuning.runs.folder import RunFolder
from etude.tuning.training.neftune import noisy_embeddings, sample_lengths


def test_a_sample_alone_in_its_row_has_the_noise_of_transformers():
    embedding = torch.nn.Embedding(11, 16)
    embedding.neftune_noise_alpha = 5.0
    ids = torch.arange(7)[None]
    theirs = torch.nn.Embedding(11, 16)
    theirs.load_state_dict(embedding.state_dict())
    theirs.neftune_noise_alpha = 5.0
    theirs.register_forward_hook(neftune_post_forward_hook)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = embedding

        base_model = property(lambda self: self)

        def get_input_embeddings(self):
            return self.embedding

        def forward(self, input_ids):
            return self.embedding(input_ids)

    torch.manual_seed(3)
    expected = theirs(ids)
    torch.manual_seed(3)
    model = Model()
    with noisy_embeddings(model, 5.0):
        found = model(input_ids=ids)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert model(input_ids=ids).equal(embedding(ids))


@pytest.fixture(scope="module")
def model(tiny_llama):
    return AutoModelForCausalLM.from_pretrained(tiny_llama(layers=1)).train()


def bounds(model, alpha, **inputs):
    """Return the largest |noise| of each token over many draws."""
    seen = []
    plain = model.get_input_embeddings()(inputs["input_ids"]).detach()
    with noisy_embeddings(model, alpha):
        # After the noise's own hook.
        hook = model.get_input_embeddings().register_forward_hook(
            lambda module, args, output: seen.append(output.detach())
        )
        for seed in range(30):
            torch.manual_seed(seed)
            model.base_model(use_cache=False, **inputs)
        hook.remove()
    return (torch.stack(seen) - plain).abs().amax(dim=(0, 3))


def test_packed_and_padded_samples_have_noise_by_their_own_length(model):
    width, alpha = model.config.hidden_size, 8.0
    ids = torch.randint(5, 50, (1, 20))
    packed = bounds(
        model,
        alpha,
        input_ids=ids,
        position_ids=torch.cat([torch.arange(4), torch.arange(16)])[None],
        segment_lengths=[4, 16],
    )
    short, long = (alpha / math.sqrt(n * width) for n in (4, 16))
    assert packed[0, :4].max() <= short * 1.001
    assert packed[0, :4].min() > 0.95 * short
    assert packed[0, 4:].max() <= long * 1.001
    assert packed[0, 4:].min() > 0.95 * long
    mask = torch.tensor([[1] * 4 + [0] * 12, [1] * 16])
    padded = bounds(model, alpha, input_ids=torch.randint(5, 50, (2, 16)), attention_mask=mask)
    assert padded[0].max() <= short * 1.001
    assert padded[1].max() <= long * 1.001


def test_an_encoders_packed_texts_have_noise_by_their_own_length():
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    bert = BertForSequenceClassification(config).train()
    seen = []
    ids = torch.randint(5, 50, (1, 20))
    inputs = {
        "input_ids": ids,
        "targets": ids,
        "position_ids": torch.cat([torch.arange(4), torch.arange(16)])[None],
        "segment_lengths": [4, 16],
    }
    plain = bert.get_input_embeddings()(ids).detach()
    with packed_rows(bert), fused_layers(bert), noisy_embeddings(bert, 8.0):
        hook = bert.get_input_embeddings().register_forward_hook(
            lambda module, args, output: seen.append(output.detach())
        )
        for seed in range(40):
            torch.manual_seed(seed)
            segment_logits(bert, inputs, 2)
        hook.remove()
    found = (torch.stack(seen) - plain).abs().amax(dim=(0, 3))[0]
    short, long = (8.0 / math.sqrt(n * 32) for n in (4, 16))
    assert found[:4].min() > 0.95 * short
    assert found[4:].max() <= 1.001 * long


def test_the_lengths_of_rows_without_a_layout_are_the_rows():
    assert (
        sample_lengths(torch.zeros(2, 3, dtype=torch.int64), None, None).tolist() == [[3] * 3] * 2
    )


def test_evaluations_and_passes_without_gradients_have_none(model):
    ids = torch.randint(5, 50, (1, 9))
    clean = model.get_input_embeddings()(ids)
    with noisy_embeddings(model, 50.0):
        with torch.no_grad():
            assert model.get_input_embeddings()(ids).equal(clean)
        model.eval()
        assert model.get_input_embeddings()(ids).equal(clean)
        model.train()


@pytest.mark.integration
def test_a_run_with_noise_resumes_to_the_same_losses(tiny_recipe, tmp_path):
    fields = tiny_recipe(train={"neftune_alpha": 5, "save_every": 7})
    run = tune(Recipe.parse(fields), base=tmp_path / "runs")
    plain = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "plain")

    def losses(run):
        return [r["loss"] for r in RunFolder.open(run.folder).read_metrics() if "loss" in r]

    whole = losses(run)
    assert whole != losses(plain)
    assert run.summary["eval_loss_before"] == plain.summary["eval_loss_before"]
    folder = RunFolder.open(run.folder)
    for path in folder.checkpoints.glob("step-*.pt"):
        if int(path.stem.removeprefix("step-")) > 14:
            path.unlink()
    folder.set_state("stopped", "as if killed")
    again = tune(Recipe.read_run(run.folder / "recipe.yaml"), resume=RunFolder.open(run.folder))
    assert losses(again) == whole
