"""The trackers that a recipe can name, by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.core.extras import require_extra
from etude.tuning.callbacks import Callback
from etude.tuning.runs.folder import RunFolder


def require_trackers(names: Sequence[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        MissingExtraError: one is not.
    """
    for name in names:
        require_extra(name, f"train.trackers: {name}", name)


def trackers(names: Sequence[str], folder: RunFolder) -> list[Callback]:
    """Return the trackers of a run."""
    return [_TRACKERS[name](folder) for name in names]


def _tensorboard(folder: RunFolder) -> Callback:
    from etude.tuning.trackers.tensorboard import TensorBoard

    return TensorBoard(folder.path / "tensorboard")


_TRACKERS: dict[str, Callable[[RunFolder], Callback]] = {"tensorboard": _tensorboard}
