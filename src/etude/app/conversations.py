"""Conversations with a run, kept in its folder while they are written.

    runs/NAME/chats/
        asked               changes whenever somebody asks: what waits is looked for again
        3f9c.../            a conversation
            events.jsonl    one JSON object a line: settings, questions, ends of answers, votes
            1-base.txt      what the base has written of its first answer; 1-tuned.txt

Each line, and each piece of a text, is one append that reaches the system before anything follows.
So a server or a process that is killed at any moment loses nothing that was written. The server
appends questions and votes; the process that answers (`converse_process`) appends the rest.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from etude.app.chatting import MAX_NEW_TOKENS, Sampling, Voice
from etude.core.atomic_files import disk_reason, to_json
from etude.core.errors import RunError
from etude.core.lock import FileLock

if TYPE_CHECKING:
    from etude.tuning.runs.folder import RunFolder

Vote = Literal["left", "right", "tie", "neither"]
VOTES: tuple[Vote, ...] = ("left", "right", "tie", "neither")
How = Literal["ended", "cut", "stopped", "failed"]

LONGEST_MESSAGE = 100_000
"""Characters of a message."""
FOLDER = "chats"
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class ChatSettings:
    """How the answers of a conversation are made and shown."""

    blind: bool = False
    """Whether order and names are hidden until there is a vote."""
    system: str | None = None
    """System message; None: the run's own, empty: none."""
    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen: each answer begins with the same seed."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, self.seed)


@dataclass(frozen=True)
class KeptAnswer:
    """What a voice has answered, or has so far."""

    voice: Voice
    text: str
    how: How | None
    """How it ended; None while it is written, or waits to be."""
    begun: bool
    tokens: int = 0
    seconds: float = 0.0
    problem: str = ""
    """Why it failed."""
    prediction: dict[str, Any] | None = None
    """Of a run that predicts instead of conversing."""


@dataclass(frozen=True)
class KeptTurn:
    """A question with its answers."""

    number: int
    """From 1."""
    values: dict[str, str]
    """What was asked: the message, or the text of each column of a prediction."""
    answers: list[KeptAnswer]
    """From left to right."""
    stop: bool
    """Whether somebody has asked to stop."""
    vote: Vote | None
    asked: float
    """In seconds since 1970."""

    @property
    def text(self) -> str:
        """What was asked, as one text."""
        return "\n".join(self.values.values())

    @property
    def waits(self) -> bool:
        """Whether an answer is still to come."""
        return any(answer.how is None for answer in self.answers)

    @property
    def winner(self) -> Voice | None:
        """The voice that was voted for."""
        if self.vote not in ("left", "right") or len(self.answers) < 2:
            return None
        return self.answers[self.vote == "right"].voice


@dataclass(frozen=True)
class Conversation:
    """A conversation as far as it was written."""

    id: str
    settings: ChatSettings
    turns: list[KeptTurn]
    began: float

    @property
    def title(self) -> str:
        """How it begins: its first line, shortened."""
        lines = self.turns[0].text.strip().splitlines() if self.turns else []
        first = " ".join(lines[0].split()) if lines else ""
        return first if len(first) <= 60 else f"{first[:59]}…"

    @property
    def at(self) -> datetime:
        """When it began, in this machine's time zone."""
        return datetime.fromtimestamp(self.began).astimezone()

    @property
    def waiting(self) -> KeptTurn | None:
        """The question that is being answered."""
        return next((turn for turn in self.turns if turn.waits), None)


@dataclass(frozen=True)
class Tally:
    """The votes on a run's answers."""

    tuned: int = 0
    base: int = 0
    tie: int = 0
    neither: int = 0

    @property
    def total(self) -> int:
        """All votes."""
        return self.tuned + self.base + self.tie + self.neither


@dataclass(frozen=True)
class Conversations:
    """The conversations of a run."""

    run: RunFolder
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.run.path / FOLDER)

    @property
    def bell(self) -> Path:
        """A file that changes whenever somebody asks."""
        return self.folder / "asked"

    def all(self) -> list[Conversation]:
        """Return all that can be read, the newest first."""
        found: list[Conversation] = []
        for path in self.folder.glob("*/events.jsonl"):
            with suppress(RunError):
                found.append(self.find(path.parent.name))
        return sorted((one for one in found if one.turns), key=lambda one: one.began, reverse=True)

    def tally(self, conversations: Sequence[Conversation]) -> Tally:
        """Count the votes of conversations."""
        votes = Counter(
            turn.winner or turn.vote
            for one in conversations
            for turn in one.turns
            if turn.vote is not None
        )
        return Tally(votes["tuned"], votes["base"], votes["tie"], votes["neither"])

    def begin(self, settings: ChatSettings) -> str:
        """Begin a conversation; return its id.

        Raises:
            RunError: the disk is full, or the run is gone.
        """
        name = secrets.token_hex(8)
        try:
            if not self.run.path.is_dir():
                raise RunError(f"there is no run {self.run.name!r}; it may have been deleted")
            (self.folder / name).mkdir(parents=True)
        except OSError as error:
            raise RunError(f"cannot begin a conversation: {disk_reason(error)}") from None
        self._append(
            name,
            kind="settings",
            blind=settings.blind,
            system=settings.system,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=settings.seed,
        )
        return name

    def ask(self, name: str, values: dict[str, str], voices: Sequence[Voice]) -> int:
        """Ask; return the number of the turn.

        Args:
            name: of the conversation.
            values: the message, or a text for each column.
            voices: who answers; in a blind conversation in an order that is drawn anew.

        Raises:
            RunError: there is no such conversation, an answer is still to come, nothing was
                written, or it is too long.
        """
        if not any(value.strip() for value in values.values()):
            raise RunError("write something first")
        if sum(map(len, values.values())) > LONGEST_MESSAGE:
            raise RunError(f"a message has at most {LONGEST_MESSAGE:,} characters")
        with self._locked(name):
            one = self.find(name)
            if one.waiting is not None:
                raise RunError("an answer is being written: wait for its end, or stop it")
            order = list(voices)
            if one.settings.blind and secrets.randbelow(2):
                order.reverse()
            number = len(one.turns) + 1
            self._append(name, kind="asked", turn=number, values=values, order=order)
        self.ring()
        return number

    def ring(self) -> None:
        """Let whoever answers look for what waits."""
        try:
            self.bell.touch()
        except OSError as error:
            raise RunError(f"cannot ask: {disk_reason(error)}") from None

    def stop(self, name: str) -> None:
        """Ask to stop the answers that are being written.

        Raises:
            RunError: there is no such conversation.
        """
        waiting = self.find(name).waiting
        if waiting is not None:
            self._append(name, kind="stop", turn=waiting.number)

    def vote(self, name: str, turn: int, vote: Vote) -> None:
        """Keep a vote: there is one for each turn.

        Raises:
            RunError: there is no such turn, it has no two finished answers, or it has a vote.
        """
        with self._locked(name):
            found = [one for one in self.find(name).turns if one.number == turn]
            if not found or found[0].waits or len(found[0].answers) < 2:
                raise RunError("there are no two finished answers to vote on")
            if found[0].vote is not None:
                raise RunError("this was voted on already")
            self._append(name, kind="vote", turn=turn, vote=vote)

    def remove(self, name: str) -> None:
        """Delete a conversation.

        Raises:
            RunError: there is none, or it is being answered.
        """
        if self.find(name).waiting is not None:
            raise RunError("an answer is being written: stop it first")
        try:
            shutil.rmtree(self.folder / name)
        except OSError as error:
            raise RunError(f"cannot delete the conversation: {disk_reason(error)}") from None

    def find(self, name: str) -> Conversation:
        """Return a conversation as far as it was written.

        Raises:
            RunError: there is none, or its file is damaged.
        """
        if not _ID.fullmatch(name) or not (self.folder / name / "events.jsonl").is_file():
            raise RunError("there is no such conversation; it may have been deleted")
        try:
            return self._read(name)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise RunError(f"{self.folder / name / 'events.jsonl'} is damaged") from None

    def _read(self, name: str) -> Conversation:
        settings, began = ChatSettings(), 0.0
        turns: dict[int, dict[str, Any]] = {}
        for event in self._events(name):
            kind = event.get("kind")
            if kind == "settings":
                known = {k: v for k, v in event.items() if k in ChatSettings.__annotations__}
                settings, began = ChatSettings(**known), float(event.get("at", 0))
            elif kind == "asked":
                turns[int(event["turn"])] = {**event, "begun": set(), "ends": {}}
            elif int(event.get("turn", 0)) not in turns:
                continue
            elif kind == "began":
                turns[int(event["turn"])]["begun"].add(event["voice"])
            elif kind == "ended":
                turns[int(event["turn"])]["ends"].setdefault(event["voice"], event)
            else:
                turns[int(event["turn"])][str(kind)] = event.get("vote", True)
        return Conversation(
            name, settings, [self._turn(name, turns[n]) for n in sorted(turns)], began
        )

    def _turn(self, name: str, event: dict[str, Any]) -> KeptTurn:
        number = int(event["turn"])
        return KeptTurn(
            number,
            {str(key): str(value) for key, value in event["values"].items()},
            [
                self._answer(name, number, voice, voice in event["begun"], event["ends"].get(voice))
                for voice in event["order"]
            ],
            bool(event.get("stop")),
            cast("Vote | None", event.get("vote")),
            float(event.get("at", 0)),
        )

    def _answer(
        self, name: str, number: int, voice: Voice, begun: bool, end: dict[str, Any] | None
    ) -> KeptAnswer:
        if end is not None:
            text = str(end.get("text", ""))
            if end["how"] == "failed":  # a disk that is full has no room for it twice
                text = text or self._written(name, number, voice)
            return KeptAnswer(
                voice,
                text,
                end["how"],
                True,
                int(end.get("tokens", 0)),
                float(end.get("seconds", 0.0)),
                str(end.get("problem", "")),
                end.get("prediction"),
            )
        return KeptAnswer(voice, self._written(name, number, voice), None, begun)

    def _written(self, name: str, number: int, voice: Voice) -> str:
        """Return what a voice has written so far; a character that was cut is left out."""
        try:
            written = self.text_file(name, number, voice).read_bytes()
        except OSError:
            return ""
        return written.decode("utf-8", "ignore").strip()

    def position(self, name: str) -> str:
        """Return a text that changes whenever more of a conversation is written."""
        # A sum, so that it does not tell which of the voices is writing.
        return str(
            sum(file.stat().st_size for file in (self.folder / name).iterdir() if file.is_file())
        )

    # -- for the process that answers ------------------------------------------------------------

    def unanswered(self) -> Iterator[tuple[Conversation, KeptTurn]]:
        """Yield the questions that wait for an answer, those asked first before others."""
        found = [(one, one.waiting) for one in self.all()]
        waiting = [(one, turn) for one, turn in found if turn is not None]
        yield from sorted(waiting, key=lambda pair: pair[1].asked)

    def is_stopped(self, name: str, turn: int) -> bool:
        """Whether somebody has asked to stop the answers of a turn."""
        return any(
            event.get("kind") == "stop" and event.get("turn") == turn
            for event in self._events(name)
        )

    def events_size(self, name: str) -> int:
        """Return the bytes of a conversation's events, which change when somebody says something.

        Raises:
            RunError: the conversation is gone.
        """
        try:
            return (self.folder / name / "events.jsonl").stat().st_size
        except OSError:
            raise RunError("the conversation was deleted") from None

    def begin_answer(self, name: str, turn: int, voice: Voice) -> None:
        """Record that a voice begins to answer; what it wrote before it was killed goes.

        Raises:
            RunError: the disk is full, or the conversation is gone.
        """
        self.text_file(name, turn, voice).unlink(missing_ok=True)
        self._append(name, kind="began", turn=turn, voice=voice)

    def add_text(self, name: str, turn: int, voice: Voice, text: str) -> None:
        """Append a piece of an answer.

        Raises:
            RunError: the disk is full, or the conversation is gone.
        """
        _append(self.text_file(name, turn, voice), text.encode(errors="replace"))

    def end_answer(
        self,
        name: str,
        turn: int,
        voice: Voice,
        how: How,
        *,
        text: str = "",
        tokens: int = 0,
        seconds: float = 0.0,
        problem: str = "",
        prediction: dict[str, Any] | None = None,
    ) -> None:
        """Record the end of an answer.

        Raises:
            RunError: the disk is full, or the conversation is gone.
        """
        self._append(
            name,
            kind="ended",
            turn=turn,
            voice=voice,
            how=how,
            text=text,
            tokens=tokens,
            seconds=seconds,
            problem=problem,
            prediction=prediction,
        )

    def text_file(self, name: str, turn: int, voice: Voice) -> Path:
        """Return the file of what a voice has written so far."""
        return self.folder / name / f"{turn}-{voice}.txt"

    def _events(self, name: str) -> list[dict[str, Any]]:
        """Return the events of a conversation; a line that a full disk has cut is left out."""
        try:
            content = (self.folder / name / "events.jsonl").read_bytes()
        except OSError:
            return []
        events: list[dict[str, Any]] = []
        for line in content.splitlines():
            try:
                event: Any = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(cast("dict[str, Any]", event))
        return events

    def _append(self, name: str, **event: Any) -> None:
        line = to_json({**event, "at": time.time()}) + "\n"
        _append(self.folder / name / "events.jsonl", line.encode(errors="replace"), line=True)

    def _locked(self, name: str) -> FileLock:
        self.find(name)
        return FileLock(self.folder / name / ".lock", wait=True)


def _append(file: Path, content: bytes, *, line: bool = False) -> None:
    """Append to a file whose folder exists.

    Args:
        file: to append to.
        content: what to append.
        line: whether it is a line; after one that was cut it begins a new one.

    Raises:
        RunError: it cannot be written.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if line and size and os.pread(descriptor, 1, size - 1) != b"\n":
                content = b"\n" + content
            if os.write(descriptor, content) < len(content):
                raise RunError("the disk is full: this cannot be kept")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RunError(f"this cannot be kept: {disk_reason(error)}") from None
