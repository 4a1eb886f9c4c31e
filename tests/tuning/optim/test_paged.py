"""State that lies elsewhere: in a file and not in memory, saved and restored exactly."""

from __future__ import annotations

import os
import signal
import sys

import psutil
import pytest
import torch
from stepping import IDS, OPTIMIZERS, mapping_of, train

from etude.core.errors import RunError
from etude.tuning.config.sections.train import TrainSpec
from etude.tuning.optim import adamw as adamw_module
from etude.tuning.optim.adamw import PagedAdamW
from etude.tuning.optim.adamw8bit import AdamW8bit
from etude.tuning.optim.optimizers import (
    make_optimizer,
    release_state,
    restore_optimizer,
    set_learning_rate,
)
from etude.tuning.optim.paged import Allocation, MappedFile, StateMemory, paged_memory
from etude.tuning.training.checkpoint import (
    Checkpoint,
    Counters,
    read_checkpoint,
    save_checkpoint,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("panel", [256, 1 << 18])
def test_paged_adamw_has_the_bits_of_pytorchs(tmp_path, monkeypatch, dtype, panel):
    monkeypatch.setitem(adamw_module.PANEL, "cpu", panel)
    shapes = [(64, 65), (7,), (), (0, 3), (1000, 3)]
    fields = {"lr": 1e-2, "betas": (0.8, 0.99), "weight_decay": 0.1}
    memory = MappedFile(tmp_path)
    ours, optimizer = train(lambda p: PagedAdamW(p, memory=memory, **fields), shapes, 5, dtype)
    theirs, peer = train(lambda p: torch.optim.AdamW(p, **fields), shapes, 5, dtype)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[a][name], peer.state[b][name])


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
        mapping = mapping_of(state[name])
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_checkpoint_reads_paged_state_without_keeping_it_in_memory(tmp_path):
    parameters = [torch.nn.Parameter(torch.ones(2 * 2**20)) for _ in range(4)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    named = {str(i): parameter for i, parameter in enumerate(parameters)}
    optimizer = make_optimizer(TrainSpec(paged=True), named, tmp_path)
    optimizer.step()
    resident = []

    def written():
        release_state(optimizer)
        mapping = mapping_of(optimizer.state[parameters[0]]["exp_avg"])
        resident.append(int(mapping["Rss"].split()[0]))

    checkpoint = Checkpoint({}, optimizer.state_dict(), Counters(step=1), "data")
    path = save_checkpoint(tmp_path / "checkpoints", checkpoint, written=written)
    assert len(resident) > 8  # once a tensor at least
    assert max(resident) < 64  # kB, of 64 MiB
    assert path.stat().st_size > 64 * 2**20
    saved = read_checkpoint(path).optimizer["state"][3]["exp_avg"]
    assert torch.equal(saved, optimizer.state[parameters[3]]["exp_avg"])


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
        with pytest.raises(RunError, match=r"cannot store 0\.8 MiB .*train\.paged: false"):
            make_optimizer(spec, {"w": torch.nn.Parameter(torch.zeros(100_000))}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_a_system_that_cannot_reserve_space_writes_zeros(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    wanted = Allocation((3, 500_000), torch.float32, torch.device("cpu"))
    (tensor,) = MappedFile(tmp_path).zeros([wanted])
    assert tensor.shape == (3, 500_000)
    assert not bool(tensor.any())


def test_paging_is_refused_where_there_is_nowhere_to_page_to():
    with pytest.raises(RunError, match="supports weights on CPU or CUDA, not on meta"):
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


@pytest.mark.parametrize("fields", OPTIMIZERS, ids=IDS)
def test_a_saved_state_is_restored_exactly(tmp_path, fields):
    spec = TrainSpec(weight_decay=0.1, loraplus_lr_ratio=2, **fields)
    names = ["a.lora_A", "a.lora_B", "norm.weight"]

    def make(parameters):
        return make_optimizer(spec, dict(zip(names, parameters, strict=True)), tmp_path)

    shapes = [(64, 100), (100, 64), (33,)]
    _, optimizer = train(make, shapes, 3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    parameters, fresh = train(make, shapes, 0)
    restore_optimizer(fresh, torch.load(tmp_path / "state.pt", weights_only=True))
    assert fresh.param_groups[1]["lr_ratio"] == optimizer.param_groups[1]["lr_ratio"]
    saved, restored = optimizer.state_dict(), fresh.state_dict()
    assert saved["param_groups"] == restored["param_groups"]
    for index, state in saved["state"].items():
        for name, value in state.items():
            other = restored["state"][index][name]
            assert other.dtype == value.dtype
            assert torch.equal(other, value)
    if spec.paged and sys.platform == "linux":
        mapping = mapping_of(fresh.state[parameters[0]]["exp_avg"])
        assert mapping["file"].startswith(str(tmp_path))


def test_paged_and_resident_checkpoints_are_one_format(tmp_path):
    for kind in ("adamw", "adamw8bit"):
        made = [
            train(
                lambda p, paged=paged, kind=kind: make_optimizer(
                    TrainSpec(optimizer=kind, paged=paged), {"w": p[0]}, tmp_path
                ),
                [(80, 80)],
                2,
            )[1]
            for paged in (True, False)
        ]
        for source, target in (made, made[::-1]):
            restore_optimizer(target, source.state_dict())


def test_another_optimisers_state_is_refused():
    weight = {"w": torch.nn.Parameter(torch.ones(4, 4))}
    saved = make_optimizer(TrainSpec(optimizer="lion"), weight).state_dict()
    with pytest.raises(RunError, match=r"state is for lion .* this recipe's adamw"):
        restore_optimizer(make_optimizer(TrainSpec(), weight), saved)
    saved = make_optimizer(TrainSpec(weight_decay=0.1), weight).state_dict()
    both = {**weight, "bias": torch.nn.Parameter(torch.ones(4))}
    with pytest.raises(RunError, match="resume with the original recipe"):
        restore_optimizer(make_optimizer(TrainSpec(weight_decay=0.1), both), saved)


def test_a_checkpoint_from_before_there_was_a_choice_is_adamws():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.ones_like(weight)
    old = torch.optim.AdamW([weight], lr=1e-3)
    old.step()
    new = make_optimizer(TrainSpec(), {"w": weight})
    restore_optimizer(new, old.state_dict())
    set_learning_rate(new, 1e-3)
    assert torch.equal(new.state[weight]["exp_avg"], old.state[weight]["exp_avg"])
    with pytest.raises(RunError):
        restore_optimizer(
            make_optimizer(TrainSpec(optimizer="adamw8bit"), {"w": weight}), old.state_dict()
        )
