"""Optimisers: against PyTorch, bitsandbytes, transformers and PEFT, in steps and in whole runs."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from etude.errors import RecipeError, RunError
from etude.tuning.kernels.codebooks import DYNAMIC_LEVELS, DYNAMIC_UNSIGNED_LEVELS
from etude.tuning.kernels.dynamic import dequantize_dynamic, quantize_dynamic
from etude.tuning.recipe import Recipe
from etude.tuning.run import tune
from etude.tuning.runfolder import RunFolder
from etude.tuning.specs import TrainSpec
from etude.tuning.training import adamw as adamw_module
from etude.tuning.training.adamw import PagedAdamW
from etude.tuning.training.adamw8bit import SMALLEST, AdamW8bit
from etude.tuning.training.lion import Lion
from etude.tuning.training.optimizers import (
    make_optimizer,
    optimizer_figures,
    parameter_groups,
    restore,
    set_learning_rate,
)
from etude.tuning.training.paged import MappedFile, StateMemory, Wanted, paged_memory

LEVELS = {True: DYNAMIC_LEVELS, False: DYNAMIC_UNSIGNED_LEVELS}


def _train(make, shapes, steps=5, dtype=torch.float32, seed=0, decades=6, scale=1.0):
    """Return the parameters and the optimiser after some steps on gradients of many magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [
        torch.nn.Parameter(scale * torch.randn(shape, generator=generator).to(dtype))
        for shape in shapes
    ]
    optimizer = make(parameters)
    for _ in range(steps):
        for parameter in parameters:
            sign = torch.randn(parameter.shape, generator=generator).sign()
            size = 10 ** (-decades * torch.rand(parameter.shape, generator=generator))
            parameter.grad = (sign * size).to(dtype)
        optimizer.step()
    return parameters, optimizer


# Dynamic quantisation


@pytest.mark.parametrize("signed", [True, False])
def test_the_dynamic_maps_are_those_of_bitsandbytes(signed):
    functional = pytest.importorskip("bitsandbytes.functional")
    assert torch.equal(functional.create_dynamic_map(signed=signed), LEVELS[signed])


@given(
    count=st.integers(1, 1500),
    signed=st.booleans(),
    decades=st.floats(0, 12),
    scale=st.sampled_from([1e-30, 1e-4, 1.0, 1e30]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_every_code_is_the_nearest_level_in_float64(count, signed, decades, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator) * scale
    x *= 10 ** (-decades * torch.rand(count, generator=generator))
    x[torch.rand(count, generator=generator) < 0.1] = 0
    x = x if signed else x.abs()
    codes, absmax = quantize_dynamic(x, signed=signed)
    assert codes.dtype == torch.uint8
    assert torch.equal(absmax, torch.stack([b.abs().max() for b in x.split(256)]))
    block = absmax.double().repeat_interleave(256)[:count]
    unit = torch.where(block > 0, x.double() / block.clamp(min=1e-300), 0.0)
    levels = LEVELS[signed].double()
    error = (levels[codes.long()] - unit).abs()
    if not signed:  # zero is for zero only: a positive number takes the lowest positive level
        assert bool((codes[x > 0] > 0).all())
        levels = torch.where(levels > 0, levels, torch.inf)
        error[x == 0] = 0
    best = torch.where(x == 0, 0.0, (unit[:, None] - levels).abs().min(1).values)
    # x / absmax is rounded twice to float32 (reciprocal, product), and so is the midpoint.
    assert bool((error - best <= 3 * 2**-24 * unit.abs() + 1e-38).all())
    decoded = dequantize_dynamic(codes, absmax, signed=signed)
    assert torch.equal(decoded, LEVELS[signed][codes.long()] * block.float())
    assert bool((decoded[x == 0] == 0).all())


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("count", [256, 4096, 5001])
def test_codes_are_those_of_bitsandbytes_where_its_table_tells_levels_apart(signed, count):
    functional = pytest.importorskip("bitsandbytes.functional")
    torch.manual_seed(count)
    x = torch.randn(count)
    x = x if signed else x.square()
    codes, absmax = quantize_dynamic(x, signed=signed)
    theirs, state = functional.quantize_blockwise(x, code=LEVELS[signed], blocksize=256)
    assert torch.equal(absmax, state.absmax)
    decoded = functional.dequantize_blockwise(codes, state)
    assert torch.equal(dequantize_dynamic(codes, absmax, signed=signed), decoded)
    # Its table has 65536 cells over [-1, 1] and takes the level nearest a cell's center: codes may
    # differ where a midpoint between levels is within half a cell, and nowhere else.
    unit = x.double() / absmax.double().repeat_interleave(256)[:count]
    levels = LEVELS[signed].double()
    midpoints = (levels[:-1] + levels[1:]) / 2
    near = (unit[:, None] - midpoints).abs().min(1).values <= 1 / 65535 + 1e-7
    assert torch.equal(codes[~near], theirs[~near])
    assert float(near.float().mean()) < 0.1


# Whole optimisers against their authors'


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
        ours, mine = _train(lambda p: AdamW8bit(p, **fields), shapes, **how)
        theirs, peer = _train(
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
    ours, optimizer = _train(lambda p: AdamW8bit(p, lr=1e-2, weight_decay=0.1), shapes, 20)
    theirs, _ = _train(lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1), shapes, 20)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("panel", [256, 1 << 18])
def test_paged_adamw_has_the_bits_of_pytorchs(tmp_path, monkeypatch, dtype, panel):
    monkeypatch.setitem(adamw_module.PANEL, "cpu", panel)
    shapes = [(64, 65), (7,), (), (0, 3), (1000, 3)]
    fields = {"lr": 1e-2, "betas": (0.8, 0.99), "weight_decay": 0.1}
    memory = MappedFile(tmp_path)
    ours, optimizer = _train(lambda p: PagedAdamW(p, memory=memory, **fields), shapes, 5, dtype)
    theirs, peer = _train(lambda p: torch.optim.AdamW(p, **fields), shapes, 5, dtype)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[a][name], peer.state[b][name])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lion_has_the_bits_of_bitsandbytes(weight_decay):
    library = pytest.importorskip("bitsandbytes")
    shapes = [(64, 65), (7,), (3, 4, 5)]
    fields = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": weight_decay}
    ours, mine = _train(lambda p: Lion(p, **fields), shapes, 10)
    theirs, peer = _train(lambda p: library.optim.Lion32bit(p, **fields), shapes, 10)
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
    start, _ = _train(ours, shapes, 0, **how)
    a, _ = _train(ours, shapes, 8, **how)
    b, _ = _train(theirs, shapes, 8, **how)
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
@settings(max_examples=60, deadline=None)
def test_every_optimiser_takes_every_shape_and_stays_finite(shape, dtype, optimizer, paged, seed):
    paged = paged and optimizer in ("adamw", "adamw8bit")
    spec = TrainSpec(optimizer=optimizer, paged=paged, lr=1e-2, weight_decay=0.01)

    def make(parameters):
        return make_optimizer(spec, {str(i): p for i, p in enumerate(parameters)})

    (parameter,), made = _train(make, [shape], 3, dtype, seed)
    (before,), _ = _train(make, [shape], 0, dtype, seed)
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
from etude.tuning.training.adamw8bit import AdamW8bit
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
    spec = TrainSpec(lr=1e-3, lr_ratio_b=16, weight_decay=0.1)
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
        lm_head__weight=(8, 8),
        lm_head__bias=(8,),
        norm__weight=(8,),
    )
    groups = parameter_groups(TrainSpec(lr=1e-3, lr_ratio_b=4, weight_decay=0.1), named)
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
        "lm_head.weight": (1, 0.1),
        "lm_head.bias": (1, 0),
        "norm.weight": (1, 0),
    }


def test_the_schedule_scales_each_group_by_its_ratio():
    optimizer = make_optimizer(
        TrainSpec(lr=1e-3, lr_ratio_b=4), _named(q__lora_A=(2, 8), q__lora_B=(8, 2))
    )
    set_learning_rate(optimizer, 5e-4)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 2e-3]


def test_without_decay_and_ratio_there_is_one_group_in_the_order_given():
    named = _named(a__bias=(2,), a__weight=(2, 2), b__lora_B=(2, 2))
    (group,) = parameter_groups(TrainSpec(), named)
    assert [id(p) for p in group["params"]] == [id(p) for p in named.values()]


# Paged state


def _mapping_of(tensor):
    """Return what /proc says of the mapping that a tensor's numbers lie in."""
    address = tensor.data_ptr()
    with Path("/proc/self/smaps").open(encoding="utf-8") as file:
        found = None
        for line in file:
            span = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)\s*(.*)", line)
            if span:
                low, high = int(span[1], 16), int(span[2], 16)
                found = {"file": span[5]} if low <= address < high else None
            elif found is not None:
                key, _, value = line.partition(":")
                found[key] = value.strip()
                if key == "VmFlags":
                    return found
    raise AssertionError("no such mapping")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", [AdamW8bit, PagedAdamW])
def test_paged_state_lies_in_a_file_of_the_folder_and_not_in_memory(tmp_path, kind):
    count = 8 * 2**20
    weight = torch.nn.Parameter(torch.zeros(count))
    weight.grad = torch.ones_like(weight)
    optimizer = kind([weight], memory=MappedFile(tmp_path))
    optimizer.step()
    state = optimizer.state[weight]
    for name in ("exp_avg", "exp_avg_sq"):
        mapping = _mapping_of(state[name])
        assert mapping["file"].startswith(str(tmp_path))
        assert int(mapping["Rss"].split()[0]) < 64  # kB: the pages are let go of
        assert mapping.get("Anonymous", "0 kB") == "0 kB"
    assert not list(tmp_path.iterdir())  # it has no name to be left behind
    if kind is PagedAdamW:
        assert torch.equal(state["exp_avg"], torch.full((count,), 0.1))


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory of a file is counted so there")
def test_paged_state_takes_no_resident_memory():
    def grown(memory):
        before = psutil.Process().memory_info().rss
        optimizer = PagedAdamW([weight], memory=memory)
        optimizer.step()
        return psutil.Process().memory_info().rss - before, optimizer

    weight = torch.nn.Parameter(torch.zeros(16 * 2**20))
    weight.grad = torch.ones_like(weight)
    resident, kept = grown(StateMemory())
    paged, also_kept = grown(paged_memory([weight.device], None))
    bytes_of_state = 2 * weight.nbytes
    assert resident > 0.9 * bytes_of_state
    assert paged < 0.1 * bytes_of_state
    assert kept.memory.paged is False
    assert also_kept.memory.paged is True


@pytest.mark.parametrize("reserves", [True, False])
def test_a_full_disk_is_told_before_the_first_step(tmp_path, monkeypatch, reserves):
    resource = pytest.importorskip("resource")
    if not reserves:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    spec = TrainSpec(paged=True)
    try:
        with pytest.raises(RunError, match=r"cannot keep 0\.8 MiB .*train\.paged: false"):
            make_optimizer(spec, {"w": torch.nn.Parameter(torch.zeros(100_000))}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_a_system_that_cannot_reserve_space_writes_zeros(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    wanted = Wanted((3, 500_000), torch.float32, torch.device("cpu"))
    (tensor,) = MappedFile(tmp_path).zeros([wanted])
    assert tensor.shape == (3, 500_000)
    assert not bool(tensor.any())


def test_paging_is_refused_where_there_is_nowhere_to_page_to():
    with pytest.raises(RunError, match="on the CPU or on CUDA, not on meta"):
        make_optimizer(
            TrainSpec(paged=True), {"w": torch.nn.Parameter(torch.zeros(2, device="meta"))}
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_state_pinned_on_the_host_gives_the_bits_of_state_on_the_device(optimizer):
    def final(paged):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(300, 500, device="cuda"))
        made = make_optimizer(TrainSpec(optimizer=optimizer, paged=paged), {"w": weight})
        for seed in range(5):
            torch.manual_seed(seed)
            weight.grad = torch.randn(300, 500).cuda()
            made.step()
        if paged:
            assert made.state[weight]["exp_avg"].is_pinned()
        return weight

    if optimizer == "adamw":
        # PyTorch's own goes over many tensors at once on a GPU, in another order of roundings.
        torch.testing.assert_close(final(True), final(False), rtol=1e-6, atol=1e-7)
    else:
        assert torch.equal(final(True), final(False))


# Saved and restored


OPTIMIZERS = [
    {"optimizer": "adamw"},
    {"optimizer": "adamw", "paged": True},
    {"optimizer": "adamw8bit"},
    {"optimizer": "adamw8bit", "paged": True},
    {"optimizer": "lion", "lr": 1e-3},
    {"optimizer": "adafactor"},
]
IDS = ["adamw", "adamw-paged", "adamw8bit", "adamw8bit-paged", "lion", "adafactor"]


@pytest.mark.parametrize("fields", OPTIMIZERS, ids=IDS)
def test_a_saved_state_is_restored_exactly(tmp_path, fields):
    spec = TrainSpec(weight_decay=0.1, lr_ratio_b=2, **fields)
    names = ["a.lora_A", "a.lora_B", "norm.weight"]

    def make(parameters):
        return make_optimizer(spec, dict(zip(names, parameters, strict=True)), tmp_path)

    shapes = [(64, 100), (100, 64), (33,)]
    _, optimizer = _train(make, shapes, 3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    parameters, fresh = _train(make, shapes, 0)
    restore(fresh, torch.load(tmp_path / "state.pt", weights_only=True))
    assert fresh.param_groups[1]["lr_ratio"] == optimizer.param_groups[1]["lr_ratio"]
    saved, restored = optimizer.state_dict(), fresh.state_dict()
    assert saved["param_groups"] == restored["param_groups"]
    for index, state in saved["state"].items():
        for name, value in state.items():
            other = restored["state"][index][name]
            assert other.dtype == value.dtype
            assert torch.equal(other, value)
    if spec.paged and sys.platform == "linux":
        mapping = _mapping_of(fresh.state[parameters[0]]["exp_avg"])
        assert mapping["file"].startswith(str(tmp_path))


def test_paged_and_resident_checkpoints_are_one_format(tmp_path):
    for kind in ("adamw", "adamw8bit"):
        made = [
            _train(
                lambda p, paged=paged, kind=kind: make_optimizer(
                    TrainSpec(optimizer=kind, paged=paged), {"w": p[0]}, tmp_path
                ),
                [(80, 80)],
                2,
            )[1]
            for paged in (True, False)
        ]
        for source, target in (made, made[::-1]):
            restore(target, source.state_dict())


def test_another_optimisers_state_is_refused():
    weight = {"w": torch.nn.Parameter(torch.ones(4, 4))}
    saved = make_optimizer(TrainSpec(optimizer="lion"), weight).state_dict()
    with pytest.raises(RunError, match=r"state of lion .* this recipe's adamw"):
        restore(make_optimizer(TrainSpec(), weight), saved)
    saved = make_optimizer(TrainSpec(weight_decay=0.1), weight).state_dict()
    both = {**weight, "bias": torch.nn.Parameter(torch.ones(4))}
    with pytest.raises(RunError, match="resume with the recipe"):
        restore(make_optimizer(TrainSpec(weight_decay=0.1), both), saved)


def test_a_checkpoint_from_before_there_was_a_choice_is_adamws():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.ones_like(weight)
    old = torch.optim.AdamW([weight], lr=1e-3)
    old.step()
    new = make_optimizer(TrainSpec(), {"w": weight})
    restore(new, old.state_dict())
    set_learning_rate(new, 1e-3)
    assert torch.equal(new.state[weight]["exp_avg"], old.state[weight]["exp_avg"])
    with pytest.raises(RunError):
        restore(make_optimizer(TrainSpec(optimizer="adamw8bit"), {"w": weight}), old.state_dict())


# Whole runs


def _losses(folder):
    return [r["loss"] for r in RunFolder.open(folder).read_metrics() if "loss" in r]


def _full(fields):
    return {
        "adapter": {"kind": "none"},
        "train": {"epochs": 8, "weight_decay": 0.01, "lr": 3e-3, **fields},
        "eval": {"generate": 0},
    }


@pytest.mark.parametrize("fields", OPTIMIZERS[1:], ids=IDS[1:])
def test_a_killed_run_repeats_the_loss_curve(tiny_recipe, tmp_path, fields):
    sections = _full(fields)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe(**sections)), "utf-8")
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
    whole = tune(Recipe.parse(tiny_recipe(**sections)), base=tmp_path / "b")
    assert done < len(_losses(whole.folder))
    assert _losses(resumed.folder) == _losses(whole.folder)
    assert resumed.summary["eval_loss"] == whole.summary["eval_loss"]
    assert whole.summary["eval_loss"] < 0.9 * whole.summary["eval_loss_before"]


def test_paging_changes_no_loss_and_8_bits_hardly_any(tiny_recipe, tmp_path):
    def run(name, **fields):
        return tune(Recipe.parse(tiny_recipe(**_full(fields))), base=tmp_path / name)

    plain, paged = run("a"), run("b", paged=True)
    small, small_paged = (
        run("c", optimizer="adamw8bit"),
        run("d", optimizer="adamw8bit", paged=True),
    )
    assert _losses(plain.folder) == _losses(paged.folder)
    assert _losses(small.folder) == _losses(small_paged.folder)
    assert small.summary["eval_loss"] == pytest.approx(plain.summary["eval_loss"], rel=0.02)
    for summary, name, is_paged in (
        (plain.summary, "adamw", False),
        (paged.summary, "adamw", True),
        (small.summary, "adamw8bit", False),
        (small_paged.summary, "adamw8bit", True),
    ):
        assert (summary["optimizer"], summary["optimizer_paged"]) == (name, is_paged)
    parameters = plain.summary["trainable_parameters"]
    assert plain.summary["optimizer_bytes"] == pytest.approx(8 * parameters, rel=0.01)
    assert small.summary["optimizer_bytes"] < 0.4 * plain.summary["optimizer_bytes"]


def test_lora_plus_changes_the_run_and_the_rate_in_the_metrics_stays_the_common_one(
    tiny_recipe, tmp_path
):
    one = tune(Recipe.parse(tiny_recipe()), base=tmp_path / "a")
    plus = tune(Recipe.parse(tiny_recipe(train={"lr_ratio_b": 8})), base=tmp_path / "b")
    rates = [
        [r["lr"] for r in RunFolder.open(run.folder).read_metrics() if "lr" in r]
        for run in (one, plus)
    ]
    assert rates[0] == rates[1]
    assert _losses(one.folder)[0] == _losses(plus.folder)[0]
    assert _losses(one.folder)[2:] != _losses(plus.folder)[2:]


def test_adalora_is_pruned_whatever_the_optimiser(tiny_recipe, tmp_path):
    sections = {"adapter": {"kind": "adalora"}, "eval": {"generate": 0}}
    for fields in OPTIMIZERS[3:]:
        train = {"epochs": 4, "lr": 0.05, **fields}
        name = f"{fields['optimizer']}"
        run = tune(Recipe.parse(tiny_recipe(**sections, train=train)), base=tmp_path / name)
        assert math.isfinite(run.summary["eval_loss"])
        saved = load_file(run.folder / "adapter" / "adapter_model.safetensors")
        ranks = [len(tensor) for name, tensor in saved.items() if "lora_A" in name]
        # Each of the modules began with 6 ranks, the adapter's 4 and a half more.
        assert sum(ranks) <= 4 * len(run.summary["adapted_modules"])


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"train": {"optimizer": "lion", "paged": True}}, r"train\.paged.*lion"),
        ({"train": {"optimizer": "adafactor", "paged": True}}, r"train\.paged.*adafactor"),
        ({"train": {"optimizer": "adafactor", "beta2": 0.99}}, "do not apply"),
        ({"train": {"lr_ratio_b": 4}, "adapter": {"kind": "vera"}}, r"lr_ratio_b.*vera"),
        ({"train": {"optimizer": "sgd"}}, r"train\.optimizer.*'sgd'"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_recipe, sections, words):
    with pytest.raises(RecipeError, match=words) as caught:
        Recipe.parse(tiny_recipe(**sections))
    assert "\n" not in str(caught.value)


def test_full_fine_tuning_beside_lora_plus_leaves_the_ratio_out(tiny_recipe):
    recipe = Recipe.parse(tiny_recipe(train={"lr_ratio_b": 4}))
    full = recipe.with_method("full")
    assert Recipe.parse(yaml.safe_load(full.to_yaml())).train.lr_ratio_b == 1


assert SMALLEST == 4096  # the shapes above are chosen by it
