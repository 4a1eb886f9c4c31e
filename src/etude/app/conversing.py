"""What the pages do to converse with a run: ask, stop, vote, and see that somebody answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.app.conversations import ChatSettings, Conversations
from etude.app.converse_process import READY
from etude.app.trying import TryField, converses, try_fields, voices_of
from etude.app.work import WorkError, WorkState, work_of_run
from etude.core.errors import RunError

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.runs.folder import RunFolder

WORK = "converse"


@dataclass(frozen=True)
class Conversable:
    """A run that can be asked."""

    run: RunFolder
    recipe: Recipe
    """As it was trained by, its system message included."""

    @property
    def converses(self) -> bool:
        """Whether it answers; otherwise it predicts."""
        return converses(self.recipe)

    @property
    def compared(self) -> bool:
        """Whether the base answers, too."""
        return len(voices_of(self.recipe)) > 1

    @property
    def fields(self) -> list[TryField]:
        """What it is asked with."""
        return try_fields(self.recipe)

    @property
    def kept(self) -> Conversations:
        """Its conversations."""
        return Conversations(self.run)

    def process(self) -> WorkState | None:
        """Return the state of the process that answers, or that did last."""
        return work_of_run(self.run).states().get(WORK)

    def position(self, name: str) -> str:
        """Return a text that changes with a conversation, and with the process."""
        return f"{self.kept.position(name)}.{work_of_run(self.run).stamp()}"

    def begin(self, settings: ChatSettings, values: dict[str, str]) -> str:
        """Begin a conversation with a first question; return its id.

        Raises:
            RunError: nothing was asked, or it cannot be kept.
        """
        kept = self.kept
        name = kept.begin(settings)
        try:
            kept.ask(name, values, voices_of(self.recipe))
        except RunError:
            kept.remove(name)
            raise
        self.wake()
        return name

    def ask(self, name: str, values: dict[str, str]) -> None:
        """Go on with a conversation.

        Raises:
            RunError: nothing was asked, an answer is still to come, or it cannot be kept.
        """
        self.kept.ask(name, values, voices_of(self.recipe))
        self.wake()

    def stop(self, name: str) -> None:
        """Stop the answers that are being written; without a process, they end here.

        Raises:
            RunError: there is no such conversation.
        """
        kept = self.kept
        kept.stop(name)
        process = self.process()
        if process is not None and process.condition == "running":
            return
        waiting = kept.find(name).waiting
        for answer in waiting.answers if waiting is not None else ():
            if waiting is not None and answer.how is None:
                kept.end_answer(name, waiting.number, answer.voice, "stopped", text=answer.text)

    def wake(self) -> None:
        """See that a process answers what waits; one that is idle for another run ends.

        Raises:
            RunError: no process can be started.
        """
        self.kept.ring()
        process = self.process()
        if process is not None and process.condition == "running":
            return
        _leave_idle(self.run)
        try:
            work_of_run(self.run).begin("converse", WORK)
        except WorkError as error:
            running = self.process()
            if running is None or running.condition != "running":  # another request was quicker
                raise RunError(str(error)) from None


def conversable(run: RunFolder) -> Conversable:
    """Return a run to converse with.

    Raises:
        RunError: it has saved nothing yet, or is at work.
        RecipeError: its recipe cannot be read.
    """
    from etude.tuning.runs.trained_recipe import trained_recipe

    if reason := why_not(run):
        raise RunError(reason)
    return Conversable(run, trained_recipe(run))


def why_not(run: RunFolder) -> str:
    """Return why a run cannot be asked; empty if it can."""
    from etude.tuning.runs.states import ALIVE

    if run.state in ALIVE:
        return "the run is at work: its memory is for training; stop it, or wait for its end"
    if not run.adapter.is_dir() and not (run.path / "model").is_dir():
        return "the run has saved nothing yet that could answer: finish it first"
    return ""


def is_loading(process: WorkState | None) -> bool:
    """Whether the model is still being loaded."""
    return process is not None and process.condition == "running" and process.step != READY


def end_conversing(run: RunFolder) -> None:
    """End the process that answers for a run, if there is one."""
    work_of_run(run).stop(WORK)


def _leave_idle(run: RunFolder) -> None:
    """End processes that wait for questions to other runs: each has a model in its memory."""
    from etude.tuning.runs.folder import list_runs

    for other in list_runs(run.path.parent):
        if other.name == run.name or not (other.path / "work").is_dir():
            continue
        process = work_of_run(other).states().get(WORK)
        if process is None or process.condition != "running":
            continue
        if not any(True for _ in Conversations(other).unanswered()):
            end_conversing(other)
