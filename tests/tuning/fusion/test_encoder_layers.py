"""Fused encoder layers against transformers' own, in float64 where the truth is asked."""

from __future__ import annotations

import copy

import pytest
import torch
from fusable_encoders import ENCODERS, adapted, classifier
from test_packed_heads import LENGTHS, samples
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from etude.tuning.adapters.multi_adapter import adapter_disabled, adapter_parameters
from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.data.batch import PACKED_ROWS, Batch
from etude.tuning.fusion import patch
from etude.tuning.fusion.encoder_eligibility import describe_encoder_layer, encoder_layers
from etude.tuning.fusion.encoder_layer import encoder_layer
from etude.tuning.fusion.packed_attention import packed_rows
from etude.tuning.fusion.packed_heads import segment_logits
from etude.tuning.fusion.patch import fused_layers
from etude.tuning.kernels import native
from etude.tuning.kernels.dropout import Dropout

pytestmark = pytest.mark.skipif(
    not native.status().ready, reason=f"no C++ kernels here: {native.status().reason}"
)
CPU = torch.device("cpu")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class counted:  # noqa: N801 - reads as a function
    """Lists the layers that ran fused inside."""

    def __enter__(self):
        self.calls, self.inner = [], patch.encoder_layer

        def call(*given):
            self.calls.append(given)
            return self.inner(*given)

        patch.encoder_layer = call
        return self.calls

    def __exit__(self, *_):
        patch.encoder_layer = self.inner


def loss_and_gradient(model, *, fused: bool, layers: int = 3, trained=None):
    """Return the loss and all gradients of adapters, end to end."""
    parameters = adapter_parameters(model) if trained is None else trained
    inputs = Batch(samples(), PACKED_ROWS).inputs(CPU)
    labels = torch.tensor([0, 2, 1, 1])
    model.zero_grad()
    with packed_rows(model), counted() as count:
        if fused:
            with fused_layers(model) as how:
                logits = segment_logits(model, inputs, len(LENGTHS))
            assert how.fused == len(count) == layers, str(how)
        else:
            logits = segment_logits(model, inputs, len(LENGTHS))
            assert not count
        loss = F.cross_entropy(logits.double(), labels)
        loss.backward()
    return loss.detach(), parameters_to_vector([p.grad for p in parameters.values()])


def error(found, true) -> float:
    return float((found.detach().double() - true).norm() / true.norm())


def truth(model):
    """Return loss and gradient by the model's own code in float64."""
    wide = copy.deepcopy(model).double()
    for module in wide.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dtype == torch.float32:
                setattr(module, name, nn.Parameter(parameter.double()))
    return loss_and_gradient(wide, fused=False)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_fused_encoder_has_the_loss_and_gradient_of_its_own_code(kind):
    model = adapted(ENCODERS[kind])
    loss, gradient = truth(model)
    found, found_gradient = loss_and_gradient(model, fused=True)
    # float32 through three layers; the model's own code is as far off (below).
    assert error(found, loss) < 1e-6
    assert error(found_gradient, gradient) < 1e-5
    plain, plain_gradient = loss_and_gradient(model, fused=False)
    assert error(plain, loss) < 1e-6
    assert error(plain_gradient, gradient) < 1e-5


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_in_bfloat16_it_is_no_further_from_the_truth_than_the_models_own_code(kind):
    far = []
    for seed in range(6):
        model = adapted(ENCODERS[kind], seed=seed).bfloat16()
        if kind == "distilbert":
            # Its head's ReLU has no gradient below 0: what lies there by rounding would be all.
            model.pre_classifier.bias.requires_grad_(False).add_(10)
        _, gradient = truth(model)
        fused, plain = (loss_and_gradient(model, fused=way) for way in (True, False))
        far.append([error(fused[1], gradient), error(plain[1], gradient)])
    mean = torch.tensor(far).mean(0)
    # A mean over six draws of an error that is one draw of rounding each: a tenth is its noise.
    assert mean[0] < 1.1 * mean[1]


SPECS = {
    "attention alone": AdapterSpec(rank=4, alpha=8, target_modules=["query", "value"]),
    "upper layers": AdapterSpec(rank=3, alpha=8, target_modules=["layer.2.output.dense"]),
    "mlp": AdapterSpec(rank=3, alpha=8, target_modules=["intermediate.dense"]),
    "rounded while training": AdapterSpec(rank=4, alpha=8, factors={"bits": 8, "when": "training"}),
}


@pytest.mark.parametrize("name", SPECS)
def test_adapters_on_some_modules(name):
    model = adapted(ENCODERS["bert"], SPECS[name])
    fused, plain = (loss_and_gradient(model, fused=way) for way in (True, False))
    assert error(fused[0], plain[0].double()) < 1e-6
    assert error(fused[1], plain[1].double()) < 1e-5


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_base(kind):
    model = adapted(ENCODERS["bert"], quant=QuantSpec(kind=kind, block=32))
    fused, plain = (loss_and_gradient(model, fused=way) for way in (True, False))
    assert error(fused[0], plain[0].double()) < 1e-6
    assert error(fused[1], plain[1].double()) < 1e-5


def test_gradients_reach_what_is_trained_below_the_layers():
    model = adapted(ENCODERS["bert"])
    words = model.bert.embeddings.LayerNorm.weight.requires_grad_()
    fused, plain = (
        loss_and_gradient(model, fused=way, trained={"words": words}) for way in (True, False)
    )
    assert error(fused[1], plain[1].double()) < 1e-5


def expected(layer, x, lengths, dropouts, read=None):
    """Compute a layer in float64 by its own modules, with the masks of these dropouts.

    Of rows that are read alone, masks after attention are counted by their places among them.
    """
    of_weights, of_attention, of_mlp = dropouts
    inner, heads = layer.attention.self, layer.attention.self.num_attention_heads
    q, k, v = (part(x).view(len(x), heads, -1) for part in (inner.query, inner.key, inner.value))
    rows, start = [], 0
    for n in lengths:
        part = slice(start, start + n)
        scores = torch.einsum("ihd,jhd->hij", q[part], k[part]) * inner.scaling
        masks = [of_weights.factors(h * len(x) + start, n, n, CPU) for h in range(heads)]
        weights = scores.softmax(2) * torch.stack(masks)
        rows.append(torch.einsum("hij,jhd->ihd", weights, v[part]).flatten(1))
        start += n
    out, attended = layer.attention.output, torch.cat(rows)
    if read is not None:
        x, attended = x[read], attended[read]
    mixed = of_attention.factors(0, *x.shape, CPU) * out.dense(attended)
    y = out.LayerNorm(x + mixed)
    t = layer.output.dense(F.gelu(layer.intermediate.dense(y)))
    return layer.output.LayerNorm(y + of_mlp.factors(0, *x.shape, CPU) * t)


def test_with_dropout_a_layer_is_its_own_modules_with_the_same_masks():
    model = adapted(
        ENCODERS["bert"], hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3
    ).train()
    layer = encoder_layers(model)[1]
    described = describe_encoder_layer(layer, torch.float32, CPU)
    x = torch.randn(65, 48, requires_grad=True)
    torch.manual_seed(11)
    found = encoder_layer(x, described.layer, [*LENGTHS], described.factors)
    torch.manual_seed(11)
    seeds = torch.randint(2**62, (3,)).tolist()
    dropouts = [Dropout(share, seed) for share, seed in zip((0.3, 0.2, 0.2), seeds, strict=True)]
    wide = copy.deepcopy(layer).double().eval()
    for module in wide.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.double()))
    leaf = x.detach().double().requires_grad_()
    true = expected(wide, leaf, LENGTHS, dropouts)
    assert error(found, true.detach()) < 1e-6
    weight = torch.randn(65, 48)
    (found * weight).sum().backward()
    (true * weight).sum().backward()
    assert error(x.grad, leaf.grad) < 1e-5
    pairs = [
        (p, q)
        for p, q in zip(layer.parameters(), wide.parameters(), strict=True)
        if p.grad is not None
    ]
    assert len(pairs) == 12
    for one, other in pairs:
        assert error(one.grad, other.grad) < 1e-5


def test_the_last_layer_computes_the_rows_that_the_head_reads_alone():
    model = adapted(ENCODERS["bert"])
    inputs = Batch(samples(), PACKED_ROWS).inputs(CPU)
    firsts = [0, 30, 32, 58]
    last, outputs = encoder_layers(model)[-1], []
    with packed_rows(model), torch.no_grad(), fused_layers(model), counted() as count:
        inner = patch.encoder_layer

        def kept(*given):
            outputs.append(inner(*given))
            return outputs[-1]

        patch.encoder_layer = kept
        segment_logits(model, inputs, len(LENGTHS))
        assert [given[4] is None for given in count] == [True, True, False]
        assert count[2][4].tolist() == firsts
        assert [len(one) for one in outputs] == [len(inputs["input_ids"][0])] * 2 + [4]
        whole = last(outputs[1][None], None, segment_lengths=inputs["segment_lengths"])
    # The same products of fewer rows, in float32.
    torch.testing.assert_close(outputs[2], whole[0][firsts], rtol=1e-5, atol=1e-6)


def test_with_dropout_rows_alone_are_their_own_modules_with_the_same_masks():
    model = adapted(
        ENCODERS["bert"], hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3
    ).train()
    layer, rows = encoder_layers(model)[1], torch.tensor([0, 30, 32, 58])
    described = describe_encoder_layer(layer, torch.float32, CPU)
    x = torch.randn(65, 48, requires_grad=True)
    torch.manual_seed(11)
    found = encoder_layer(x, described.layer, [*LENGTHS], described.factors, rows)
    torch.manual_seed(11)
    seeds = torch.randint(2**62, (3,)).tolist()
    dropouts = [Dropout(share, seed) for share, seed in zip((0.3, 0.2, 0.2), seeds, strict=True)]
    wide = copy.deepcopy(layer).double().eval()
    for module in wide.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.double()))
    leaf = x.detach().double().requires_grad_()
    true = expected(wide, leaf, LENGTHS, dropouts, rows)
    assert error(found, true.detach()) < 1e-6
    weight = torch.randn(4, 48)
    (found * weight).sum().backward()
    (true * weight).sum().backward()
    assert error(x.grad, leaf.grad) < 1e-5
    pairs = [
        (p, q)
        for p, q in zip(layer.parameters(), wide.parameters(), strict=True)
        if p.grad is not None
    ]
    assert len(pairs) == 12
    for one, other in pairs:
        assert error(one.grad, other.grad) < 1e-5
    with pytest.raises(RuntimeError, match="backward can run only once"):
        again = encoder_layer(x, described.layer, [*LENGTHS], described.factors, rows)
        again.sum().backward(retain_graph=True)
        again.sum().backward()


def gradients(model, seed):
    torch.manual_seed(seed)
    return loss_and_gradient(model, fused=True)


def test_dropout_is_a_function_of_the_seed_also_where_layers_are_computed_again():
    model = adapted(ENCODERS["bert"]).train()  # BERT's own 0.1
    one, two, other = (gradients(model, seed) for seed in (1, 1, 2))
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], other[1])
    model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(1)
    again = loss_and_gradient(model, fused=True)
    assert torch.equal(again[0], one[0])
    # Autograd adds the shares of a tensor that is used twice in another order.
    assert error(again[1], one[1].double()) < 1e-5


def test_dropout_has_the_mean_of_the_models_own():
    """The expected logits of the two ways of dropping are the same: a share is no other share."""
    model = adapted(ENCODERS["bert"]).train()
    inputs = Batch(samples(), PACKED_ROWS).inputs(CPU)
    means = []
    for fused in (True, False):
        found = []
        with packed_rows(model), torch.no_grad():
            for seed in range(400):
                torch.manual_seed(seed)
                if fused:
                    with fused_layers(model):
                        found.append(segment_logits(model, inputs, 4))
                else:
                    found.append(segment_logits(model, inputs, 4))
        means.append((torch.stack(found).mean(0), torch.stack(found).std(0)))
    (mean, deviation), (other, own) = means
    # Each mean of 400 draws is off by a twentieth of their deviation; five times √2 of that.
    assert ((mean - other).abs() / own).max() < 0.36
    assert ((deviation / own) - 1).abs().max() < 0.36


@pytest.mark.parametrize("training", [False, True])
def test_another_neighbour_changes_no_bit_of_a_fused_sample(training):
    model = adapted(ENCODERS["bert"]).bfloat16().train(training)
    mine, other = samples(), samples(seed=9)
    found = []
    for several in (mine, [other[0], *mine[1:]]):
        torch.manual_seed(3)
        with packed_rows(model), fused_layers(model), counted() as count, torch.no_grad():
            found.append(segment_logits(model, Batch(several, PACKED_ROWS).inputs(CPU), 4))
        assert len(count) == 3
    assert torch.equal(found[0][1:], found[1][1:])
    assert not torch.equal(found[0][0], found[1][0])


def test_it_is_said_how_many_layers_run_fused_and_why_others_do_not():
    with fused_layers(adapted(ENCODERS["bert"]).train()) as how:
        assert str(how).startswith("3 fused encoder layers, kernels compiled")
    with fused_layers(classifier(ENCODERS["bert"], hidden_act="relu")) as how:
        assert "0 of 3 encoder layers fused: the activation" in str(how)
    with fused_layers(classifier(ENCODERS["bert"]).requires_grad_(True)) as how:
        assert "weights of the base are trained" in str(how)
    dropped = adapted(ENCODERS["bert"], AdapterSpec(rank=4, dropout=0.1)).train()
    with fused_layers(dropped) as how:
        assert "dropout on the adapters' input is active" in str(how)
    model = adapted(ENCODERS["bert"])
    model.bert.encoder.layer[1].attention.output.dropout.register_forward_hook(lambda *_: None)
    with fused_layers(model) as how:
        assert "2 of 3 encoder layers fused: a hook" in str(how)


def test_padded_rows_and_what_is_not_fused_run_by_the_models_own_code():
    model = adapted(ENCODERS["bert"])
    ids = torch.randint(2, 97, (2, 9))
    with torch.no_grad():
        true = model(input_ids=ids).logits
        with fused_layers(model), counted() as count:
            assert torch.equal(model(input_ids=ids).logits, true)
    assert not count
    assert all("forward" not in vars(layer) for layer in encoder_layers(model))
    with adapter_disabled(model):
        with packed_rows(model), fused_layers(model), counted() as count, torch.no_grad():
            without = segment_logits(model, Batch(samples()).inputs(CPU), 4)
        with packed_rows(model), torch.no_grad():
            plain = segment_logits(model, Batch(samples()).inputs(CPU), 4)
    assert len(count) == 3
    torch.testing.assert_close(without, plain, rtol=1e-4, atol=2e-5)
