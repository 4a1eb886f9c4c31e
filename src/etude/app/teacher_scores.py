"""Storing a teacher's scores, before any run that learns from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.app.tune import PlannedRun
    from etude.core.progress import Progress
    from etude.tuning.callbacks import Callback


@dataclass(frozen=True)
class StoredScores:
    """What is stored."""

    folder: Path
    kind: str
    per_position: int
    words: int
    temperature: float
    samples: int
    positions: int
    covered: float
    """Mean share of a position's mass that its words have."""
    bytes: int
    teacher: str

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), "folder": str(self.folder)}


def store_scores(
    plan: PlannedRun,
    *,
    base: Path,
    callbacks: Callback,
    progress: Progress,
    ignore_memory: bool = False,
) -> StoredScores:
    """Store the scores of a planned run's training samples, as far as they are not there.

    Args:
        plan: from `app.tune.plan_run`.
        base: folder that runs are kept in, for the teacher.
        callbacks: told of what the user should know.
        progress: reports every stage.
        ignore_memory: begin even if the memory estimate says that it cannot fit.

    Raises:
        EtudeError: see `teacher_scoring.store_teacher_scores`.
    """
    from etude.tuning.teacher_scoring import store_teacher_scores

    store = store_teacher_scores(
        plan.recipe,
        base=base,
        callbacks=callbacks,
        progress=progress,
        ignore_memory=ignore_memory,
    )
    about = store.about
    return StoredScores(
        store.folder,
        about.kind,
        about.per_position,
        about.words,
        about.temperature,
        len(store.keys),
        store.positions,
        store.covered(),
        store.bytes,
        about.teacher_name,
    )
