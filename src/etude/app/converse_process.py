"""The process that answers the questions put to a run, with the run's model in its memory.

It is work of the run's folder (`work`), so it outlives the server: what was asked is answered to
its end. One copy of the weights serves base and tuned model. It ends when nothing was asked for a
while, when the run was trained further or is deleted, or when it is told to.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from etude.app.chatting import StopAnswerError, chat_of
from etude.app.conversations import Conversation, Conversations, KeptTurn, Voice
from etude.app.trying import converses, predict_once
from etude.core.errors import EtudeError, RunError

if TYPE_CHECKING:
    from etude.app.work import Reporter, WorkRequest
    from etude.tuning.predictor import Predictor
    from etude.tuning.runs.folder import RunFolder

IDLE_SECONDS = 300.0
LOOK_SECONDS = 0.1
"""Between two looks at whether somebody asked."""
READY = "ready"
"""The step of a process that waits for questions."""


def weights_stamp(run: RunFolder) -> int:
    """Return a number that changes when the run's adapter or model is written anew; 0: none."""
    for folder in (run.adapter, run.path / "model"):
        with suppress(OSError):
            return max(file.stat().st_mtime_ns for file in folder.iterdir())
    return 0


def converse(request: WorkRequest, progress: Reporter) -> None:
    """Answer what is asked, until nothing is for a while: in the process.

    Raises:
        EtudeError: the run cannot be loaded.
    """
    from etude.tuning.predictor import load
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.runs.states import ALIVE

    run = RunFolder(request.folder.parent)
    kept = Conversations(run)
    stamp = weights_stamp(run)
    answering: tuple[str, int, Voice] | None = None
    try:
        predictor = load(run, progress=progress)
        idle = time.monotonic()
        heard = -1
        progress.start(READY, None)
        while run.path.is_dir() and run.state not in ALIVE and weights_stamp(run) == stamp:
            now = _bell(kept.bell)
            if now == heard:
                if time.monotonic() - idle > IDLE_SECONDS:
                    # Who asked before this is written is found below; who asks later, and finds
                    # no process, starts one.
                    progress.end()
                    if _bell(kept.bell) == heard:
                        return
                    progress.go_on()
                time.sleep(LOOK_SECONDS)
                continue
            heard = now
            while (waiting := next(kept.unanswered(), None)) is not None:
                conversation, turn = waiting
                for answer in turn.answers:
                    if answer.how is None:
                        answering = conversation.id, turn.number, answer.voice
                        _answer(kept, predictor, conversation, turn, answer.voice)
                        answering = None
            idle = time.monotonic()
    except SystemExit:
        if answering is not None:
            with suppress(RunError):
                name, number, voice = answering
                text = kept.text_file(name, number, voice).read_text("utf-8", "ignore").strip()
                kept.end_answer(name, number, voice, "stopped", text=text)


def _bell(bell: Path) -> int:
    try:
        return bell.stat().st_mtime_ns
    except OSError:
        return 0


def _answer(
    kept: Conversations,
    predictor: Predictor,
    conversation: Conversation,
    turn: KeptTurn,
    voice: Voice,
) -> None:
    """Let a voice answer; what is wrong with the question is its answer.

    Raises:
        RunError: the end of the answer cannot be kept.
    """
    name, number = conversation.id, turn.number
    try:
        if kept.is_stopped(name, number):
            kept.end_answer(name, number, voice, "stopped")
            return
        kept.begin_answer(name, number, voice)
        began = time.monotonic()
        if converses(predictor.recipe):
            _speak(kept, predictor, conversation, turn, voice)
            return
        prediction = predict_once(predictor, turn.values, voice)
        kept.end_answer(
            name,
            number,
            voice,
            "ended",
            prediction=prediction,
            seconds=time.monotonic() - began,
        )
    except EtudeError as error:
        if kept.text_file(name, number, voice).parent.is_dir():
            kept.end_answer(name, number, voice, "failed", problem=str(error))
    except MemoryError:
        kept.end_answer(name, number, voice, "failed", problem="the memory does not suffice")


def _speak(
    kept: Conversations,
    predictor: Predictor,
    conversation: Conversation,
    turn: KeptTurn,
    voice: Voice,
) -> None:
    from etude.tuning.data.schema import Message

    name, number = conversation.id, turn.number
    messages: list[Message] = []
    for earlier in conversation.turns:
        messages.append(Message("user", earlier.text))
        if earlier.number == number:
            break
        (said,) = (one for one in earlier.answers if one.voice == voice)
        if said.how in ("ended", "cut") or said.text:
            messages.append(Message("assistant", said.text))
        else:  # stopped before its first word: as if it had not been asked
            messages.pop()
    size = kept.events_size(name)

    def write(text: str) -> None:
        nonlocal size
        if text:
            kept.add_text(name, number, voice, text)
        if (now := kept.events_size(name)) != size:
            size = now
            if kept.is_stopped(name, number):
                raise StopAnswerError

    chat = chat_of(predictor, system=conversation.settings.system)
    said = chat.answer(voice, messages, conversation.settings.sampling, write)
    kept.end_answer(
        name, number, voice, said.how, text=said.text, tokens=said.tokens, seconds=said.seconds
    )
