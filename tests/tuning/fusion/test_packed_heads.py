"""Classifiers on packed rows: each sample has the logits it has alone, and sees no neighbour."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fusable_encoders import ALBERT, ENCODERS, FNET, LLAMA, classifier
from transformers import BertConfig, BertForTokenClassification, BertModel

from etude.tuning.data.batch import PACKED_ROWS, Batch, Layout
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.fusion.layout import row_layout
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.fusion.packed_heads import segment_logits, token_states
from etude.tuning.fusion.packing_probe import packs_exactly
from etude.tuning.objectives.classification import class_logits

LENGTHS = (30, 2, 26, 7)


def samples(seed=0, lengths=LENGTHS):
    draw = np.random.default_rng(seed)
    return [
        EncodedSample(draw.integers(2, 97, n).astype(np.int32), np.zeros(n, np.bool_), "row")
        for n in lengths
    ]


def alone(model, several):
    with torch.no_grad():
        rows = [torch.as_tensor(one.input_ids).long()[None] for one in several]
        return torch.cat([model(input_ids=row).logits for row in rows])


@pytest.mark.parametrize("make", [*ENCODERS.values(), LLAMA], ids=[*ENCODERS, "llama"])
def test_packed_rows_have_the_logits_of_samples_alone_and_of_padded_rows(make):
    model = classifier(make)
    assert packs_exactly(model, outputs="samples") is None
    true = alone(model, samples())
    for layout in (PACKED_ROWS, Layout(packed=False, pad_id=model.config.pad_token_id or 0)):
        with row_layout(model, layout), torch.no_grad():
            found = class_logits(model, Batch(samples(), layout))
        # float32 through three layers, and logits of the size of 1.
        torch.testing.assert_close(found, true, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("make", [*ENCODERS.values(), LLAMA], ids=[*ENCODERS, "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_neighbour_changes_no_bit(make, dtype):
    model = classifier(make).to(dtype)
    mine, other = samples(), samples(seed=9)
    with row_layout(model, PACKED_ROWS), torch.no_grad():
        one = class_logits(model, Batch(mine, PACKED_ROWS))
        two = class_logits(model, Batch([other[0], *mine[1:]], PACKED_ROWS))
    assert torch.equal(one[1:], two[1:])
    assert not torch.equal(one[0], two[0])


def test_the_trial_sees_what_cannot_be_packed():
    assert "see each other" in packs_exactly(classifier(FNET), outputs="samples")
    assert "of another shape" in packs_exactly(classifier(ALBERT), outputs="samples")
    # A model whose heads look elsewhere than where they should: its own code, and not its packing.
    model = classifier(ENCODERS["bert"])
    model.score = torch.nn.Linear(48, 3)
    assert "for a packed sample differ" in packs_exactly(model, outputs="samples")


def test_the_trial_sees_positions_that_are_counted_otherwise():
    model = classifier(ENCODERS["bert"])
    plain = type(model.bert.embeddings).forward

    def from_one(*given, position_ids=None, **more):
        length = given[0].shape[1] if given else more["input_ids"].shape[1]
        positions = torch.arange(1, length + 1)[None] if position_ids is None else position_ids
        return plain(model.bert.embeddings, *given, position_ids=positions, **more)

    model.bert.embeddings.forward = from_one
    assert "for a packed sample differ" in packs_exactly(model, outputs="samples")


def test_the_trial_leaves_the_model_as_it_was_and_is_made_once():
    model = classifier(ENCODERS["roberta"]).train()
    before = model.config._attn_implementation
    assert packs_exactly(model, outputs="samples") is None
    assert model.training
    assert model.config._attn_implementation == before
    assert not model.roberta.embeddings._forward_pre_hooks
    assert "forward" not in vars(model.roberta)
    model.forward = None  # never called again
    assert packs_exactly(model, outputs="samples") is None


def test_positions_are_moved_once_where_rows_are_packed_within_packed_rows():
    model = classifier(ENCODERS["roberta"])
    true = alone(model, samples())
    with packed_rows(model), packed_rows(model), torch.no_grad():
        found = segment_logits(model, Batch(samples()).inputs(model.device), len(LENGTHS))
    torch.testing.assert_close(found, true, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(alone(model, samples()), true)


def test_a_head_per_token_and_states_for_pooling():
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=97, intermediate_size=64, num_labels=5, **sizes)
    tagger = BertForTokenClassification(config).eval()
    assert packs_exactly(tagger, outputs="tokens") is None
    inputs = Batch(samples()).inputs(tagger.device)
    with row_layout(tagger, PACKED_ROWS), torch.no_grad():
        logits = tagger(**{k: v for k, v in inputs.items() if k != "targets"}).logits
        states, lengths = token_states(tagger, inputs)
    assert logits.shape == (1, 128, 5)
    assert lengths == [*LENGTHS, 63]
    body = BertModel(config, add_pooling_layer=False).eval()
    body.load_state_dict(tagger.bert.state_dict())
    assert packs_exactly(body, outputs="tokens") is None
    start = 0
    for sample, length in zip(samples(), lengths, strict=False):
        ids = torch.as_tensor(sample.input_ids).long()[None]
        with torch.no_grad():
            own, state = tagger(input_ids=ids).logits[0], body(input_ids=ids).last_hidden_state[0]
        part = slice(start, start + length)
        torch.testing.assert_close(logits[0, part], own, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(states[part], state, rtol=1e-4, atol=2e-5)
        start += length
