"""The search: trials are drawn, trained, compared and recorded, one after the other.

    runs/text-classification-20261130-101010/    the search's folder, of the form of a run's
        search.json       the space, and how it is searched
        recipe.yaml       the default recipe, resolved
        journal.jsonl     Optuna's storage
        trials.json       every trial, and what follows from them
        trials/           a run's folder a trial
        best.yaml         the winner's recipe, ready to run
        search.html       all of it, to look at

The default recipe is trial 0, trained in full before anything is drawn: it decides the metric, and
whatever is wrong with data or model ends the search there. A search that was stopped or killed goes
on by what its files say: a trial that was at work goes on from its last checkpoint, and none that
is finished is repeated.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from etude.core.atomic_files import disk_reason
from etude.core.errors import RecipeError, RunError
from etude.tuning.config.recipe import Recipe
from etude.tuning.metrics.metric import Metric
from etude.tuning.runs.folder import RunFolder, list_runs
from etude.tuning.search.evidence import select
from etude.tuning.search.halving import Begin, Drop, next_action
from etude.tuning.search.importance import importance
from etude.tuning.search.measures import chosen_metrics, leaves_base, measured
from etude.tuning.search.page import write_search_report
from etude.tuning.search.record import SearchRecord, Selection
from etude.tuning.search.space import Space
from etude.tuning.search.storage import (
    READY,
    Direction,
    make_sampler,
    note,
    open_study,
    report,
    require_optuna,
)
from etude.tuning.search.trial import UNCOUNTED, Trial, percent
from etude.tuning.search.worker import Job, Outcome, Worker

if TYPE_CHECKING:
    from optuna.study import Study

RECORD = "trial"
"""User attribute of Optuna's trial that holds ours."""

MOST_SKIPPED = 50
"""Draws in a row that cannot be trained, or were drawn before, after which a space is exhausted."""

_AGAIN = "the same values"


class View(Protocol):
    """Shows a search while it runs."""

    def on_record(self, record: SearchRecord) -> None:
        """Show the trials, of which one has changed."""
        ...

    def on_event(self, number: int, name: str, figures: dict[str, Any]) -> None:
        """Show what a trial's process does."""
        ...

    def on_message(self, text: str) -> None:
        """Show a line."""
        ...


class Search:
    """One process's work on a search.

    Args:
        folder: of the search, locked by this process; search.json is written.
        space: of the search.
        view: shows it.
        stopping: whether it is to stop at the next safe point.
    """

    def __init__(
        self, folder: RunFolder, space: Space, view: View, stopping: Callable[[], bool]
    ) -> None:
        require_optuna()
        self.folder = folder
        self.space = space
        self.settings = space.settings
        self.view = view
        self.stopping = stopping
        self.base = folder.path / "trials"
        self._worker = Worker(folder.log)
        self._study: Study | None = None
        self._metrics: tuple[Metric, Metric] | None = None
        self._began = time.monotonic()
        self._earlier = 0.0

    def run(self) -> Literal["finished", "stopped"]:
        """Search until all trials are done, the time is over, or a stop is asked for.

        Raises:
            RunError: the default recipe cannot be trained, the disk is full, or a file of the
                search is damaged; what is finished stays, and the search can be resumed.
            RecipeError: the metric does not exist.
        """
        self.base.mkdir(exist_ok=True)
        before = SearchRecord.read(self.folder)
        self._earlier = before.seconds if before else 0.0
        try:
            if not self._default():
                return "stopped"
            return self._search()
        except KeyboardInterrupt:
            # A second Ctrl-C: what the trial at work has saved stays.
            self._worker.kill()
            raise
        except OSError as error:
            raise RunError(
                f"cannot write in {self.folder.path}: {disk_reason(error)}; free some space and "
                f"resume: etude search --resume {self.folder.path}"
            ) from error
        finally:
            self._worker.close()

    # Trial 0

    def _default(self) -> bool:
        """Train the default recipe in full, unless it is; open the study. False: stopped."""
        trial = Trial(0, self.space.default_values(), "running")
        folder = self._run_of(0)
        if folder is None or folder.state != "finished":
            self._show(SearchRecord(self._unknown(), (), [trial], Selection(None, None, None)))
            outcome = self._train(trial, 1.0)
            if outcome.state == "stopped":
                return False
            folder = self._run_of(0)
            if outcome.state != "finished" or folder is None:
                raise RunError(
                    f"the default recipe of {self.space.origin} cannot be trained, so it cannot "
                    f"be searched around: {outcome.reason}"
                )
            trial = replace(trial, seconds=outcome.seconds)
        self._open(folder)
        study = self._opened()
        if not study.get_trials(deepcopy=False):
            self._add_default(study, self._measured(trial, folder))
        return True

    def _add_default(self, study: Study, trial: Trial) -> None:
        from optuna.trial import create_trial

        active = [one for one in self.space.ranges if one.key in trial.values]
        study.add_trial(
            create_trial(
                params={one.key: one.stored(trial.values[one.key]) for one in active},
                distributions={one.key: one.distribution() for one in active},
                values=trial.objectives,
                user_attrs={READY: True, RECORD: trial.as_json()},
            )
        )

    def _open(self, default: RunFolder) -> None:
        """Open the study; the default recipe's run says which metrics there are.

        Raises:
            RecipeError: the metric that is named is not among them.
        """
        summary: dict[str, Any] = default.read_json(default.summary.name) or {}
        self._metrics = chosen_metrics(self.settings.metric, summary, default.read_metrics())
        metric = self._metrics[0]
        first: Direction = "maximize" if metric.higher_is_better else "minimize"
        directions: list[Direction] = [first, *("minimize" for _ in self.settings.against)]
        self._study = open_study(self.folder.path, self.settings, directions)
        self._tell_late()

    # The other trials

    def _search(self) -> Literal["finished", "stopped"]:
        skipped, settings = 0, self.settings
        while True:
            trials = self._trials()
            if not skipped:
                self._show(self._record(trials))
            if self.stopping():
                return "stopped"
            action = next_action(trials, settings, self._rung_metric.better)
            if action is None:
                return "finished"
            if isinstance(action, Drop):
                self._end(trials[action.number], "dropped")
                continue
            if self._out_of_time():
                self.view.on_message("the time is over; --resume goes on with what is left")
                return "finished"
            if isinstance(action, Begin):
                trial = self._draw(action.bracket, trials)
                skipped = skipped + 1 if trial is None else 0
                if skipped >= MOST_SKIPPED:
                    self.view.on_message(
                        f"{MOST_SKIPPED} draws in a row were impossible or drawn before: the "
                        "space is exhausted"
                    )
                    # What has been begun is compared and trained to its end.
                    begun = sum(trial.state not in UNCOUNTED for trial in trials)
                    settings, skipped = settings.model_copy(update={"trials": begun}), 0
                continue
            trial = trials[action.number]
            outcome = self._train(trial, action.until)
            if outcome.state == "stopped":
                self._store(replace(trial, seconds=trial.seconds + outcome.seconds))
                return "stopped"
            self._settle(trial, outcome)

    def _draw(self, bracket: int, trials: Sequence[Trial]) -> Trial | None:
        """Draw a trial; None if its recipe is impossible, or was drawn before."""
        study = self._opened()
        # Of the seed and the number alone, so that a resumed search draws what it would have.
        seed = _seed(self.settings.seed, len(trials))
        study.sampler = make_sampler(self.settings.model_copy(update={"seed": seed}))
        drawn = study.ask()
        visible, values = self.space.visible({}), dict[str, Any]()
        for one in self.space.ranges:
            if one.holds(visible):
                values[one.key] = visible[one.key] = one.suggest(drawn)
            else:
                visible[one.key] = self.space.unset(one.key)
        trial = Trial(drawn.number, values, "running", bracket)
        if reason := self._impossible(trial, trials):
            trial = replace(trial, state="skipped", reason=reason)
        # In this order: a trial that is not ready was killed while it was drawn.
        drawn.set_user_attr(RECORD, trial.as_json())
        drawn.set_user_attr(READY, True)
        if trial.state == "skipped":
            self._tell(trial)
            return None
        return trial

    def _impossible(self, trial: Trial, trials: Sequence[Trial]) -> str:
        """Return why a trial is not to be trained; empty if it is."""
        same = [other.number for other in trials if other.values == trial.values]
        if same:
            return f"{_AGAIN} as trial {same[0]}"
        try:
            self.space.recipe(trial.values, _run_name(trial.number))
        except RecipeError as error:
            return str(error).partition(": ")[2]
        return ""

    def _train(self, trial: Trial, until: float) -> Outcome:
        """Train a trial until a share of its training.

        Raises:
            RunError: the disk is full.
        """
        folder = self._run_of(trial.number)
        recipe = self.space.recipe(trial.values, _run_name(trial.number))
        if folder is not None:
            recipe = Recipe.read_run(folder.recipe)
        if "peak_rss" in self.settings.against:
            # What an earlier trial has left in a process would count as this one's.
            self._worker.close()
        outcome = self._worker.run(
            Job(
                recipe.model_dump(mode="json"),
                str(self.base),
                folder.path.name if folder is not None else "",
                self.settings.shares,
                until,
                self._before(),
            ),
            lambda name, figures: self.view.on_event(trial.number, name, dict(figures)),
            self.stopping,
        )
        if outcome.disk_full and not trial.number:
            raise RunError(outcome.reason)
        if outcome.disk_full:
            raise RunError(
                f"trial {trial.number}: {outcome.reason}; finished trials are kept: free some "
                f"space and resume: etude search --resume {self.folder.path}"
            )
        return outcome

    def _before(self) -> dict[str, Any] | None:
        """Return what trial 0 measured before training, if that of all trials is the same."""
        default = self._run_of(0)
        if default is None or not leaves_base(one.key for one in self.space.ranges):
            return None
        return default.read_json("before.json")

    def _settle(self, trial: Trial, outcome: Outcome) -> None:
        """Record the outcome of a trial's training."""
        trial = replace(trial, seconds=round(trial.seconds + outcome.seconds, 3))
        folder = self._run_of(trial.number)
        if outcome.state in ("failed", "diverged", "skipped", "no_memory"):
            state = cast("Any", outcome.state)
            if outcome.state == "skipped" and folder is not None:
                state = "failed"
            name = folder.path.name if folder is not None else ""
            self._end(replace(trial, run=name), state, outcome.reason)
            return
        assert folder is not None
        trial = self._measured(trial, folder)
        if outcome.state == "finished":
            self._store(trial)
            self._tell(trial)
            folder.remove_checkpoints()
            return
        if not trial.rungs:
            self._end(trial, "failed", "nothing was measured at its rung: no held-out samples?")
            return
        if len(self._objectives()) == 1:
            value = trial.rungs[max(trial.rungs, key=int)]
            report(self._opened(), trial.number, percent(trial.share), self._oriented(value))
        self._store(replace(trial, state="paused"))

    def _oriented(self, value: float) -> float:
        """Return a rung's value in the direction of the metric, of which the loss is opposite."""
        metric, rung = self._metrics or (None, None)
        assert metric is not None
        assert rung is not None
        return value if metric.higher_is_better == rung.higher_is_better else -value

    def _measured(self, trial: Trial, folder: RunFolder) -> Trial:
        assert self._metrics is not None
        return measured(trial, folder, self._metrics, self.settings)

    # The journal

    def _tell(self, trial: Trial) -> None:
        """Tell the sampler how a trial ended."""
        from optuna.trial import TrialState

        study = self._opened()
        if trial.state == "finished":
            study.tell(trial.number, trial.objectives)
            return
        again = trial.state == "skipped" and trial.reason.startswith(_AGAIN)
        unknown = trial.state == "failed" or again or len(self._objectives()) > 1
        study.tell(trial.number, state=TrialState.FAIL if unknown else TrialState.PRUNED)

    def _end(self, trial: Trial, state: Any, reason: str = "") -> None:
        """Record a trial that ended without a value.

        Told as pruned it counts as the worst, so that the sampler leaves its surroundings; one that
        broke down says nothing of its values.
        """
        ended = replace(trial, state=state, reason=reason)
        self._store(ended)
        self._tell(ended)
        if state == "dropped" and (folder := self._run_of(trial.number)) is not None:
            folder.remove_checkpoints()

    def _store(self, trial: Trial) -> None:
        note(self._opened(), trial.number, RECORD, trial.as_json())

    def _trials(self) -> list[Trial]:
        """Return all trials, in the order of their numbers."""
        found: list[Trial] = []
        for one in self._opened().get_trials(deepcopy=False):
            kept = one.user_attrs.get(RECORD)
            found.append(
                Trial.from_json(kept)
                if kept and READY in one.user_attrs
                else Trial(one.number, {}, "skipped", reason="killed while it was drawn")
            )
        return found

    def _tell_late(self) -> None:
        """Tell the sampler of trials that were stored as ended just before a kill."""
        from optuna.trial import TrialState

        told = self._opened().get_trials(deepcopy=False)
        for trial in self._trials():
            over = trial.state not in ("running", "paused")
            if over and told[trial.number].state == TrialState.RUNNING:
                self._tell(trial)

    def _opened(self) -> Study:
        assert self._study is not None
        return self._study

    def _objectives(self) -> list[str]:
        return [cast("tuple[Metric, Metric]", self._metrics)[0].name, *self.settings.against]

    @property
    def _rung_metric(self) -> Metric:
        assert self._metrics is not None
        return self._metrics[1]

    # What is shown and written

    def _record(self, trials: Sequence[Trial]) -> SearchRecord:
        assert self._metrics is not None
        metric, rung = self._metrics
        return SearchRecord(
            metric,
            tuple(self.settings.against),
            list(trials),
            select(trials, metric.better),
            rung_metric=rung,
            importance=importance(self.space, trials, rung),
            seconds=round(self._earlier + time.monotonic() - self._began, 1),
        )

    def _show(self, record: SearchRecord) -> None:
        record.write(self.folder)
        write_search_report(self.folder, self.space)
        self.view.on_record(record)

    def _unknown(self) -> Metric:
        name = self.settings.metric or "metric"
        return Metric(name, name, "loss", higher_is_better=True)

    def _out_of_time(self) -> bool:
        limit = self.settings.minutes
        return limit is not None and time.monotonic() - self._began > limit * 60

    def _run_of(self, number: int) -> RunFolder | None:
        """Return the run of a trial; of several, the last that was begun."""
        name = _run_name(number)
        found = [run for run in list_runs(self.base) if run.path.name.startswith(f"{name}-")]
        return found[-1] if found else None


def _run_name(number: int) -> str:
    return f"trial-{number:03}"


def _seed(seed: int, number: int) -> int:
    """Return a seed for one draw."""
    digest = hashlib.sha256(json.dumps([seed, number]).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def trials_of(folder: Path) -> Path:
    """Return the folder of a search's trials."""
    return folder / "trials"
