"""Features and labels as tensors: checked once, then batched, shuffled and loaded by PyTorch.

    features (N, F)   floating point, finite
    labels   (N,)     integers (classes from 0; kept as int64), or floating point (finite)

Files are `.npz` and `.safetensors` with arrays of these two names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset

from etude.core.errors import DataError

NAMES = ("features", "labels")

Batch = tuple[torch.Tensor, torch.Tensor]
"""features (B, F) and labels (B,)."""


def tensor_dataset(features: torch.Tensor, labels: torch.Tensor) -> TensorDataset:
    """Check features (N, F) and labels (N,) and return them as one data set of N samples.

    Raises:
        DataError: N differs, a shape or dtype is not as above, or a value is NaN or infinite; the
            first offending row is named, counted from 0.
    """
    if features.dim() != 2:
        raise DataError(f"features must have shape (N, F), got {_shape(features)}")
    if labels.dim() != 1:
        raise DataError(f"labels must have shape (N,), got {_shape(labels)}")
    if len(features) != len(labels):
        raise DataError(
            f"features has {len(features):,} rows and labels {len(labels):,}; each row needs one "
            "label"
        )
    if features.numel() == 0:
        raise DataError(f"features is empty: its shape is {_shape(features)}")
    if not features.is_floating_point():
        raise DataError(
            f"features must be floating point, got {_dtype(features)}; convert it, as in "
            "features.astype('float32')"
        )
    _check_finite("features", features)
    if labels.is_floating_point():
        _check_finite("labels", labels)
        return TensorDataset(features, labels)
    if labels.dtype == torch.bool or labels.is_complex():
        raise DataError(
            f"labels must be integers (classes) or floating point, got {_dtype(labels)}; convert "
            "it, as in labels.astype('int64')"
        )
    # Losses take classes as int64, and narrow integers lack half of torch's operations.
    labels = labels.long()
    if bool((labels < 0).any()):
        row = int((labels < 0).nonzero()[0])
        raise DataError(
            f"labels[{row}] is {int(labels[row])}; classes are counted from 0, so a label is not "
            "negative"
        )
    return TensorDataset(features, labels)


def tensor_loader(
    dataset: TensorDataset, batch_size: int, shuffle: bool, seed: int, workers: int
) -> DataLoader[Any]:
    """Return a loader of `Batch`es; every sample comes once an epoch, the last batch may be short.

    Args:
        dataset: from `tensor_dataset`.
        batch_size: samples a batch.
        shuffle: whether each epoch has an order of its own, drawn by `seed`.
        seed: the orders of all epochs follow from it.
        workers: processes that load batches in parallel, each ahead of the training by two
            batches; 0 loads in the process that trains.
    """
    if batch_size < 1:
        raise DataError(f"the batch size must be at least 1, got {batch_size}")
    # A generator of the sampler's own: the loader draws from its generator as well, and how often
    # depends on the workers.
    shuffled = RandomSampler(dataset, generator=torch.Generator().manual_seed(seed))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=shuffled if shuffle else SequentialSampler(dataset),
        generator=torch.Generator().manual_seed(seed),
        num_workers=workers,
        # Workers are started once, not anew each epoch.
        persistent_workers=workers > 0,
    )


def load_tensors(path: str | os.PathLike[str]) -> TensorDataset:
    """Read `features` and `labels` from a `.npz` or `.safetensors` file, checked.

    Raises:
        DataError: the file is missing, damaged, of another kind, lacks one of the two, or what
            they hold cannot be trained on.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"no data file at {file}")
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if file.suffix not in readers:
        raise DataError(f"{file}: features and labels are read from {' and '.join(readers)} files")
    held, found = readers[file.suffix](file)
    missing = [name for name in NAMES if name not in found]
    if missing:
        raise DataError(
            f"{file} has no array {' and none '.join(missing)}; it holds "
            f"{', '.join(held) or 'nothing'}"
        )
    try:
        return tensor_dataset(found["features"], found["labels"])
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _read_npz(file: Path) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Return the names of all arrays, and those of NAMES that are there."""
    try:
        # A pickled array could run code as it is read; plain numbers need none.
        with np.load(file, allow_pickle=False) as archive:
            held = list(archive.files)
            arrays: dict[str, Any] = {name: archive[name] for name in NAMES if name in held}
    # A damaged archive shows as any of a dozen errors of zipfile, zlib, numpy and the system.
    except Exception:
        raise DataError(
            f"{file} cannot be read as .npz: it is damaged, or holds other things than arrays of "
            "numbers"
        ) from None
    tensors: dict[str, torch.Tensor] = {}
    for name, array in arrays.items():
        try:
            tensors[name] = torch.as_tensor(array.astype(array.dtype.newbyteorder("="), copy=False))
        except TypeError:
            raise DataError(f"{file}: {name} has the dtype {array.dtype}, not numbers") from None
    return held, tensors


def _read_safetensors(file: Path) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Return the names of all tensors, and those of NAMES that are there."""
    from safetensors import SafetensorError, safe_open

    try:
        with cast("Any", safe_open)(file, framework="pt") as archive:
            held: list[str] = sorted(archive.keys())
            return held, {name: archive.get_tensor(name) for name in NAMES if name in held}
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as safetensors: {reason}") from None


@dataclass(frozen=True)
class TensorSummary:
    """What `etude data inspect` shows of features and labels."""

    samples: int
    features: int
    dtypes: dict[str, str]
    labels: list[tuple[str, int]]
    """Label and its samples; ten ranges where labels are not whole numbers."""


def summarize(dataset: TensorDataset) -> TensorSummary:
    """Count what a data set holds."""
    features, labels = dataset.tensors
    if labels.is_floating_point():
        counts, edges = np.histogram(labels.double().numpy(), bins=10)
        named = [
            (f"{low:.4g} to {high:.4g}", int(count))
            for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
        ]
    else:
        values, tally = np.unique(labels.numpy(), return_counts=True)
        named = [(str(value), int(count)) for value, count in zip(values, tally, strict=True)]
    return TensorSummary(
        samples=len(dataset),
        features=features.shape[1],
        dtypes={"features": _dtype(features), "labels": _dtype(labels)},
        labels=named,
    )


def _check_finite(name: str, values: torch.Tensor) -> None:
    bad = ~torch.isfinite(values)
    if not bool(bad.any()):
        return
    place = [int(index) for index in bad.nonzero()[0]]
    rows = int(bad.flatten(1).any(1).sum()) if values.dim() > 1 else int(bad.sum())
    raise DataError(
        f"{name}[{', '.join(map(str, place))}] is {float(values[tuple(place)])}; {rows:,} of "
        f"{len(values):,} rows are not finite; fix or remove them"
    )


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
