"""Optimisers, step by step, against PyTorch, bitsandbytes, transformers and PEFT."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stepping import train

from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.optim.adamw import PagedAdamW
from etude.tuning.optim.adamw8bit import AdamW8bit
from etude.tuning.optim.lion import Lion
from etude.tuning.optim.optimizers import (
    make_optimizer,
    optimizer_figures,
    parameter_groups,
    set_learning_rate,
)

# Against their authors'


@pytest.fixture
def bitsandbytes_exact(monkeypatch):
    """bitsandbytes with the search for the nearest level that it has for other dtypes.

    On a processor it looks float32 up in its coarse table, on a GPU it bisects; the path for
    float64 compares with every level. `keeps_positive` adds the one thing that is other here: no
    positive second moment becomes zero.
    """
    library = pytest.importorskip("bitsandbytes")
    from bitsandbytes.backends.cpu import ops

    monkeypatch.setattr(library, "keeps_positive", False, raising=False)

    def quantize(x, code, absmax, out, block):
        codes, scales = torch.ops.bitsandbytes.quantize_blockwise(x.double(), code, block)
        if library.keeps_positive and code[0] == 0:
            codes = torch.maximum(codes, (x > 0).to(torch.uint8))
        out.copy_(codes.view_as(out))
        absmax.copy_(scales)

    monkeypatch.setattr(ops, "_quant_blockwise_fp32_direct", quantize)
    return library


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("decades", [2, 6])
def test_8_bit_adamw_has_the_codes_and_weights_of_bitsandbytes(
    bitsandbytes_exact, dtype, weight_decay, decades
):
    # Within two decades no second moment is rounded to zero, so nothing is added to bitsandbytes.
    bitsandbytes_exact.keeps_positive = decades > 2
    shapes = [(64, 64), (97, 101), (5000,), (3, 7, 11, 23)]  # all of 4096 numbers and more
    fields = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": weight_decay}
    for steps in (1, 2, 20):
        how = {"steps": steps, "dtype": dtype, "decades": decades}
        ours, mine = train(lambda p: AdamW8bit(p, **fields), shapes, **how)
        theirs, peer = train(
            lambda p: bitsandbytes_exact.optim.AdamW8bit(p, **fields), shapes, **how
        )
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
            state, other = mine.state[a], peer.state[b]
            assert torch.equal(state["exp_avg"], other["state1"].view(-1))
            assert torch.equal(state["exp_avg_sq"], other["state2"].view(-1))
            assert torch.equal(state["exp_avg_absmax"], other["absmax1"])
            assert torch.equal(state["exp_avg_sq_absmax"], other["absmax2"])


def test_a_gradient_that_fails_to_come_is_no_jump_where_its_block_has_far_larger_ones(
    bitsandbytes_exact,
):
    def second_step(make):
        weight = torch.nn.Parameter(torch.zeros(64, 64))
        optimizer = make([weight])
        weight.grad = torch.full_like(weight, 1e-4)
        weight.grad[:, 0] = 1.0
        optimizer.step()
        before = weight.detach().clone()
        weight.grad[:, 1:] = 0
        optimizer.step()
        return float((weight - before).detach().abs().max())

    lr = 1e-3
    # Adam's step is lr · m̂ / √v̂ at most, about lr here.
    assert second_step(lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=0)) < 2 * lr
    assert second_step(lambda p: AdamW8bit(p, lr=lr)) < 2 * lr
    # By the letter of the paper the second moment vanishes under the first: lr · m̂ / ε.
    peer = bitsandbytes_exact.optim.AdamW8bit
    assert second_step(lambda p: peer(p, lr=lr, weight_decay=0)) > 1000 * lr


def test_8_bit_adamw_keeps_small_parameters_as_pytorch_does():
    shapes = [(63, 65), (1,), (4095,)]
    ours, optimizer = train(lambda p: AdamW8bit(p, lr=1e-2, weight_decay=0.1), shapes, 20)
    theirs, _ = train(lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1), shapes, 20)
    for a, b in zip(ours, theirs, strict=True):
        assert optimizer.state[a]["exp_avg"].dtype == torch.float32
        # The same sums, rounded in another order: a few units in the last place of a step of 1e-2.
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_8_bit_adamw_solves_what_adamw_solves():
    torch.manual_seed(0)
    X, target = torch.randn(512, 96), torch.randn(96, 64)

    def loss_after(make):
        weight = torch.nn.Parameter(torch.zeros(96, 64))
        optimizer = make([weight])
        for _ in range(300):
            optimizer.zero_grad()
            loss = (X @ (weight - target)).square().mean()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    ours = loss_after(lambda p: AdamW8bit(p, lr=3e-2))
    full = loss_after(lambda p: torch.optim.AdamW(p, lr=3e-2))
    assert full < 0.01 * 96  # the start is about 96
    assert ours < 0.01 * 96


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lion_has_the_bits_of_bitsandbytes(weight_decay):
    library = pytest.importorskip("bitsandbytes")
    shapes = [(64, 65), (7,), (3, 4, 5)]
    fields = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": weight_decay}
    ours, mine = train(lambda p: Lion(p, **fields), shapes, 10)
    theirs, peer = train(lambda p: library.optim.Lion32bit(p, **fields), shapes, 10)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(mine.state[a]["exp_avg"], peer.state[b]["state1"])


def test_adafactor_steps_by_the_learning_rate_as_that_of_transformers_does():
    from transformers.optimization import Adafactor

    def ours(parameters):
        named = {str(i): parameter for i, parameter in enumerate(parameters)}
        return make_optimizer(TrainSpec(optimizer="adafactor", lr=1e-2), named)

    def theirs(parameters):
        return Adafactor(parameters, lr=1e-2, scale_parameter=False, relative_step=False)

    # Weights below 1 in root mean square: steps are absolute, as without `scale_parameter`.
    shapes = [(64, 32), (50,)]
    how = {"dtype": torch.float64, "scale": 0.5}
    start, _ = train(ours, shapes, 0, **how)
    a, _ = train(ours, shapes, 8, **how)
    b, _ = train(theirs, shapes, 8, **how)
    for x, y, before in zip(a, b, start, strict=True):
        assert float((x - before).detach().abs().max()) > 1e-3
        torch.testing.assert_close(x - before, y - before, rtol=1e-6, atol=1e-9)


# Odd tensors


@given(
    shape=st.lists(st.integers(1, 40), min_size=0, max_size=4).map(tuple),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    optimizer=st.sampled_from(["adamw", "adamw8bit", "lion", "adafactor"]),
    paged=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_optimiser_takes_every_shape_and_stays_finite(shape, dtype, optimizer, paged, seed):
    paged = paged and optimizer in ("adamw", "adamw8bit")
    spec = TrainSpec(optimizer=optimizer, paged=paged, lr=1e-2, weight_decay=0.01)

    def make(parameters):
        return make_optimizer(spec, {str(i): p for i, p in enumerate(parameters)})

    (parameter,), made = train(make, [shape], 3, dtype, seed)
    (before,), _ = train(make, [shape], 0, dtype, seed)
    assert parameter.dtype == dtype
    assert bool(torch.isfinite(parameter).all())
    moved = (parameter - before).detach().float().abs()
    # Adam's step is at most 3.2 lr, Adafactor's lr in root mean square, times that of the weight;
    # decay and the rounding of bfloat16 come on top.
    size = float(moved.square().mean().sqrt()) if optimizer == "adafactor" else float(moved.max())
    assert size < 3 * 3.2 * 1e-2 + 0.02
    assert optimizer_figures(made)["optimizer_bytes"] > 0


@pytest.mark.parametrize("kind", [AdamW8bit, PagedAdamW])
def test_a_parameter_whose_numbers_do_not_lie_in_order_is_updated_in_place(kind):
    torch.manual_seed(0)
    start, grads = torch.randn(80, 70), torch.randn(4, 80, 70)
    whole = torch.nn.Parameter(start.clone())
    turned = torch.nn.Parameter(start.T.contiguous().T)
    assert not turned.is_contiguous()
    place = turned.data_ptr()
    for parameter in (whole, turned):
        optimizer = kind([parameter], lr=1e-2)
        for grad in grads:
            parameter.grad = grad.clone() if parameter is whole else grad.T.contiguous().T
            optimizer.step()
    assert turned.data_ptr() == place
    assert torch.equal(turned, whole)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit", "lion", "adafactor"])
def test_a_zero_gradient_moves_nothing(optimizer):
    weight = torch.nn.Parameter(torch.randn(100, 64))
    before = weight.detach().clone()
    made = make_optimizer(TrainSpec(optimizer=optimizer), {"w": weight})
    for _ in range(3):
        weight.grad = torch.zeros_like(weight)
        made.step()
    assert torch.equal(weight, before)


def test_rows_without_a_gradient_keep_still_beside_rows_with_one_in_8_bits():
    # An embedding's rows of 96 share blocks of 256 with their neighbours.
    weight = torch.nn.Parameter(torch.randn(64, 96))
    before = weight.detach().clone()
    optimizer = AdamW8bit([weight], lr=1e-2)
    for _ in range(5):
        weight.grad = torch.zeros_like(weight)
        weight.grad[::2] = torch.randn(32, 96)
        optimizer.step()
    assert torch.equal(weight[1::2], before[1::2])
    assert not bool((weight[::2] == before[::2]).any())


def test_a_step_needs_temporary_memory_for_a_panel_and_not_for_the_parameter():
    done = subprocess.run(
        [sys.executable, "-c", _PEAK],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    grown = int(done.stdout)
    # A float32 copy of one moment would be 96 MiB; a panel's are 1 MiB each.
    assert grown < 24 * 2**20


_PEAK = """
import resource, torch
from etude.tuning.optim.adamw8bit import AdamW8bit
weight = torch.nn.Parameter(torch.zeros(24 * 2**20))
weight.grad = torch.ones_like(weight)
optimizer = AdamW8bit([weight])
for tensor in optimizer.state[weight].values():
    tensor.add_(0)  # so that its pages are there
small = torch.nn.Parameter(torch.zeros(1 << 19))
small.grad = torch.ones_like(small)
AdamW8bit([small]).step()  # code and tables are loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
optimizer.step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


# Groups


def _named(**shapes):
    return {
        name.replace("__", "."): torch.nn.Parameter(torch.ones(s)) for name, s in shapes.items()
    }


def test_groups_are_those_of_pefts_loraplus_on_linear_layers():
    peft = pytest.importorskip("peft")
    from peft.optimizers import create_loraplus_optimizer

    base = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0", "2"], r=2))
    theirs = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.1
    )
    named = {
        name.replace(".default.weight", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    spec = TrainSpec(lr=1e-3, loraplus_lr_ratio=16, weight_decay=0.1)
    ours = make_optimizer(spec, named)

    def by_parameter(optimizer):
        return {
            id(parameter): (group["lr"], group["weight_decay"])
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    assert len(by_parameter(ours)) == 4
    assert by_parameter(ours) == by_parameter(theirs)


def test_each_kind_of_weight_has_its_rate_and_its_decay():
    named = _named(
        q__lora_A=(2, 8),
        q__lora_B=(8, 2),
        q__lora_magnitude_vector=(8,),
        conv__lora_magnitude_vector=(1, 8, 1, 1),
        embed__lora_B=(8, 2),
        k__lora_E=(2, 1),
        v__vera_lambda_b=(8,),
        v__ia3_l=(8, 1),
        lm_head__weight=(8, 8),
        lm_head__bias=(8,),
        norm__weight=(8,),
        embed__trainable_tokens_delta=(3, 8),
    )
    groups = parameter_groups(TrainSpec(lr=1e-3, loraplus_lr_ratio=4, weight_decay=0.1), named)
    found = {
        name: (group["lr_ratio"], group["weight_decay"])
        for group in groups
        for name, parameter in named.items()
        if any(parameter is member for member in group["params"])
    }
    assert found == {
        "q.lora_A": (1, 0.1),
        "q.lora_B": (4, 0.1),
        "q.lora_magnitude_vector": (1, 0),
        "conv.lora_magnitude_vector": (1, 0),
        "embed.lora_B": (4, 0.1),
        "k.lora_E": (1, 0.1),
        "v.vera_lambda_b": (1, 0.1),
        "v.ia3_l": (1, 0),
        "lm_head.weight": (1, 0.1),
        "lm_head.bias": (1, 0),
        "norm.weight": (1, 0),
        "embed.trainable_tokens_delta": (1, 0),
    }


def test_a_new_head_has_its_own_rate():
    named = _named(q__lora_B=(8, 2), classifier__weight=(2, 8), classifier__bias=(2,))
    spec = TrainSpec(lr=1e-3, head_lr_ratio=5, loraplus_lr_ratio=4)
    groups = parameter_groups(spec, named, ["classifier"])
    assert {group["lr_ratio"]: len(group["params"]) for group in groups} == {4: 1, 5: 2}
    assert {group["lr_ratio"] for group in parameter_groups(spec, named)} == {4, 1}


def test_the_schedule_scales_each_group_by_its_ratio():
    optimizer = make_optimizer(
        TrainSpec(lr=1e-3, loraplus_lr_ratio=4), _named(q__lora_A=(2, 8), q__lora_B=(8, 2))
    )
    set_learning_rate(optimizer, 5e-4)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 2e-3]


def test_without_decay_and_ratio_there_is_one_group_in_the_order_given():
    named = _named(a__bias=(2,), a__weight=(2, 2), b__lora_B=(2, 2))
    (group,) = parameter_groups(TrainSpec(), named)
    assert [id(p) for p in group["params"]] == [id(p) for p in named.values()]
