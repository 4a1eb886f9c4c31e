"""Features and labels: refused with the offending row, or loaded in parallel, each once."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import TensorDataset

from etude.core.errors import DataError
from etude.tuning.data.tensors import load_tensors, summarize, tensor_dataset, tensor_loader

FEATURES = torch.arange(12.0).reshape(6, 2)
LABELS = torch.tensor([0, 1, 2, 0, 1, 0])


def with_value(tensor: torch.Tensor, place: tuple[int, ...], value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed[place] = value
    return changed


def test_length_is_the_number_of_samples_and_items_are_rows():
    dataset = tensor_dataset(FEATURES, LABELS.to(torch.uint16))
    assert isinstance(dataset, TensorDataset) and len(dataset) == 6
    features, label = dataset[4]
    assert features.tolist() == [8.0, 9.0] and label.item() == 1 and label.dtype == torch.int64


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (FEATURES, LABELS[:5], r"features has 6 rows and labels 5"),
        (FEATURES[:, 0], LABELS, r"features must have shape \(N, F\), got \(6,\)"),
        (FEATURES, LABELS[:, None], r"labels must have shape \(N,\), got \(6, 1\)"),
        (FEATURES[:0], LABELS[:0], r"features is empty: its shape is \(0, 2\)"),
        (FEATURES.long(), LABELS, r"features must be floating point, got int64"),
        (FEATURES, LABELS > 0, r"labels must be integers .*, got bool"),
        (with_value(FEATURES, (3, 1), float("nan")), LABELS, r"features\[3, 1\] is nan; 1 of 6"),
        (with_value(FEATURES, (2, 0), float("-inf")), LABELS, r"features\[2, 0\] is -inf"),
        (FEATURES, with_value(LABELS.float(), (4,), float("inf")), r"labels\[4\] is inf; 1 of 6"),
        (FEATURES, with_value(LABELS, (5,), -1), r"labels\[5\] is -1"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_first_row(features, labels, message):
    with pytest.raises(DataError, match=message):
        tensor_dataset(features, labels)


def test_files_are_read_and_named_in_complaints(tmp_path):
    np.savez(tmp_path / "a.npz", features=FEATURES.numpy().astype(">f4"), labels=LABELS.numpy())
    save_file({"features": FEATURES, "labels": LABELS}, tmp_path / "a.safetensors")
    for name in ("a.npz", "a.safetensors"):
        features, labels = load_tensors(tmp_path / name).tensors
        assert torch.equal(features, FEATURES) and torch.equal(labels, LABELS)

    np.savez(tmp_path / "b.npz", x=FEATURES.numpy(), labels=LABELS.numpy())
    with pytest.raises(DataError, match=r"b\.npz has no array features; it holds x, labels"):
        load_tensors(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", features=FEATURES.numpy(), labels=np.array(["a"] * 6))
    with pytest.raises(DataError, match=r"c\.npz: labels has the dtype <U1, not numbers"):
        load_tensors(tmp_path / "c.npz")
    with pytest.raises(DataError, match="no data file at"):
        load_tensors(tmp_path / "none.npz")


class Planted:
    """A pickle that leaves a file behind where it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_file_that_would_run_code_is_refused_unread(tmp_path):
    trap = tmp_path / "trap"
    np.savez(tmp_path / "a.npz", features=np.array([Planted(str(trap))]), labels=LABELS.numpy())
    with pytest.raises(DataError, match=r"a\.npz cannot be read"):
        load_tensors(tmp_path / "a.npz")
    assert not trap.exists()


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_a_torn_file_is_refused(tmp_path, name):
    path = tmp_path / name
    if name.endswith("npz"):
        np.savez(path, features=FEATURES.numpy(), labels=LABELS.numpy())
    else:
        save_file({"features": FEATURES, "labels": LABELS}, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        load_tensors(path)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_comes_once_an_epoch_with_its_own_label(workers):
    features = torch.arange(103.0)[:, None].expand(103, 3).contiguous()
    dataset = tensor_dataset(features, torch.arange(103) % 7)
    loader = tensor_loader(dataset, batch_size=10, shuffle=True, seed=0, workers=workers)
    epochs = [list(loader) for _ in range(2)]
    orders = []
    for batches in epochs:
        assert [len(labels) for _, labels in batches] == [10] * 10 + [3]
        order = torch.cat([features[:, 0] for features, _ in batches]).long()
        labels = torch.cat([labels for _, labels in batches])
        assert torch.equal(labels, order % 7)
        assert sorted(order.tolist()) == list(range(103))
        orders.append(order.tolist())
    assert orders[0] != orders[1] != list(range(103))


def test_the_order_follows_from_the_seed_however_many_workers_load():
    dataset = tensor_dataset(torch.randn(40, 2), torch.arange(40))

    def orders(seed: int, workers: int) -> list[list[int]]:
        loader = tensor_loader(dataset, 8, shuffle=True, seed=seed, workers=workers)
        return [torch.cat([labels for _, labels in loader]).tolist() for _ in range(2)]

    assert orders(0, 0) == orders(0, 2) != orders(1, 0)


class WhoLoads(TensorDataset):
    """Says which process loaded each sample."""

    def __getitem__(self, index):
        return (*super().__getitem__(index), os.getpid())


def test_two_workers_load_beside_the_process_that_trains():
    dataset = WhoLoads(torch.randn(40, 2), torch.arange(40))
    loader = tensor_loader(dataset, 5, shuffle=False, seed=0, workers=2)
    processes = [set(pids.tolist()) for _, _, pids in loader]
    assert all(len(pids) == 1 for pids in processes)
    both = set.union(*processes)
    assert len(both) == 2 and os.getpid() not in both


def test_summary_counts_labels_or_ranges_of_them():
    summary = summarize(tensor_dataset(FEATURES, LABELS))
    assert (summary.samples, summary.features) == (6, 2)
    assert summary.labels == [("0", 3), ("1", 2), ("2", 1)]
    ranges = summarize(tensor_dataset(FEATURES, torch.linspace(0, 1, 6))).labels
    assert len(ranges) == 10 and sum(count for _, count in ranges) == 6
