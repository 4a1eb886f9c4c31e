"""The journal of a search: Optuna's storage in the search's folder, made safe against kills.

Optuna's journal is one JSON object a line, appended. Two things it does not mend itself: a last
line cut short by a power cut, to which the next record would be glued; and trials whose process was
killed, which stay `RUNNING`. Here the file is cut back to its last newline before it is opened, and
a trial that was asked for but has no values yet is told to have failed (one that has is gone on
with: see `driver`). One process at a time opens a search: it holds the lock of its folder.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from etude.core.atomic_files import disk_reason, drop_torn_line
from etude.core.errors import RunError
from etude.core.extras import require_extra
from etude.tuning.search.settings import SearchSettings

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study

JOURNAL = "journal.jsonl"

Direction = Literal["minimize", "maximize"]

READY = "ready"
"""User attribute of a trial whose values are all drawn."""

STARTUP = 10
"""Trials drawn at random before TPE or a Gaussian process is fitted."""


def require_optuna() -> None:
    """Check that Optuna is installed.

    Raises:
        MissingExtraError: it is not; the message says how to install it.
    """
    require_extra("search", "`etude search`", "optuna")


def open_study(folder: Path, settings: SearchSettings, directions: Sequence[Direction]) -> Study:
    """Open the journal of a search, or begin it.

    Args:
        folder: of the search, locked by this process.
        settings: of the search, for its sampler.
        directions: `minimize` or `maximize` of each objective.

    Raises:
        MissingExtraError: Optuna is not installed.
        RunError: the journal cannot be read or written.
    """
    require_optuna()
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    file = folder / JOURNAL
    try:
        mend_journal(file)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(file)))
        study = optuna.create_study(
            storage=storage,
            study_name="search",
            directions=list(directions),
            sampler=make_sampler(settings),
            load_if_exists=True,
        )
    except OSError as error:
        raise RunError(f"cannot read or write {file}: {disk_reason(error)}") from None
    except (ValueError, KeyError, AssertionError) as error:
        raise RunError(f"{file} is damaged: {error}") from None
    fail_half_drawn(study)
    return study


def mend_journal(file: Path) -> None:
    """Cut the journal back to its last whole line, and remove the lock of a killed process."""
    # Optuna waits half a minute for a lock whose holder was killed; ours is that of the folder.
    Path(f"{file}.lock").unlink(missing_ok=True)
    if not file.exists():
        return
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        drop_torn_line(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fail_half_drawn(study: Study) -> None:
    """Tell of trials that were killed before all their values were drawn that they failed."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if READY not in trial.user_attrs:
            study.tell(trial.number, state=TrialState.FAIL)


def report(study: Study, number: int, percent: int, value: float) -> None:
    """Record a trial's value at a rung; `percent` of the training is done."""
    storage: Any = study._storage  # pyright: ignore[reportPrivateUsage]
    # The public way is a method of the object that `ask` returned, which a resumed search has not.
    identity = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)  # pyright: ignore[reportPrivateUsage]
    storage.set_trial_intermediate_value(identity, percent, value)


def note(study: Study, number: int, key: str, value: Any) -> None:
    """Record plain data beside a trial, under `key`."""
    storage: Any = study._storage  # pyright: ignore[reportPrivateUsage]
    identity = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)  # pyright: ignore[reportPrivateUsage]
    storage.set_trial_user_attr(identity, key, value)


def make_sampler(settings: SearchSettings) -> BaseSampler:
    """Return the sampler of a search.

    Raises:
        MissingExtraError: the Gaussian process needs SciPy, which is not installed.
    """
    from optuna.samplers import GPSampler, RandomSampler, TPESampler

    if settings.sampler == "random":
        return RandomSampler(seed=settings.seed)
    if settings.sampler == "gp":
        require_extra("search", "`--sampler gp`", "scipy")
        return GPSampler(
            seed=settings.seed, n_startup_trials=STARTUP, warn_independent_sampling=False
        )
    # `group` is what conditions need: each group of keys that occur together has a joint density.
    return TPESampler(seed=settings.seed, n_startup_trials=STARTUP, multivariate=True, group=True)
