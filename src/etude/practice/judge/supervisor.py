"""Supervisor of one sandboxed run: sends the request, collects the answers, enforces the limits.

A run ends when its process ends or the judge's time limit expires, never at the end of a pipe,
which a surviving child process could keep open.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from etude.practice.protocol import LENGTHS, MalformedError, decode

GRACE_SECONDS = 2.0
MOST_ANSWER = 64 << 20
LOOK_SECONDS = 0.02
"""Interval between two reads of the answers: waking up for each costs both sides."""
MUCH_BYTES = 64 << 10
"""If one read returns this much, the next follows at once."""

Ending = Literal["exit", "time", "output", "answer", "fault"]


@dataclass
class ExecutionResult:
    """Result of one run."""

    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Messages of the sandbox, in order; each has an `event`. None is trusted."""
    ending: Ending = "exit"
    """Reason of the end: exit, time limit, too much output or answers, or a fault."""
    status: int = 0
    """Exit code, or the negated signal number."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    fault: str = ""


@dataclass
class Prepared:
    """A prepared process that waits for a submission, and the judge's ends of its pipes."""

    run: int
    request: int
    result: int
    output: int
    process: int = -1
    ready: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    end: dict[str, Any] = field(default_factory=dict[str, Any])

    def close(self) -> None:
        """Close every descriptor, once."""
        for name in ("request", "result", "output", "process"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)


class Frames:
    """Cuts a stream of bytes into frames, up to the maximum size of a run's answers."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return len(self.buffer)

    def add(self, content: bytes) -> bool:
        """Add bytes; return False above the limit."""
        self.buffer += content
        return len(self.buffer) <= MOST_ANSWER

    def events(self) -> list[dict[str, Any]]:
        """Return the complete frames, up to the first invalid one."""
        events: list[dict[str, Any]] = []
        at = 0
        while at + LENGTHS.size <= len(self.buffer):
            head, body = LENGTHS.unpack_from(self.buffer, at)
            end = at + LENGTHS.size + head + body
            if end > len(self.buffer):
                break
            try:
                value = decode(bytes(self.buffer[at:end]))
            except MalformedError as error:
                events.append({"event": "malformed", "why": str(error)})
                break
            events.append(
                value if isinstance(value, dict) else {"event": "malformed", "why": "no event"}
            )
            at = end
        return events


class Printed:
    """Counts output that bypasses Python's `print`, and stores its beginning."""

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self.start = bytearray()

    def add(self, content: bytes) -> bool:
        """Add bytes; return False above the limit."""
        self.size += len(content)
        self.start += content[: 2000 - len(self.start)]
        return self.size <= self.most


def attend(prepared: Prepared, frame: bytes, seconds: float, most_output: int) -> ExecutionResult:
    """Send the request, read answers until the process ends, and kill it above a limit."""
    outcome = ExecutionResult()
    begun = time.monotonic()
    reader, printed, sent = Frames(), Printed(most_output), 0
    for descriptor in (prepared.request, prepared.result, prepared.output):
        os.set_blocking(descriptor, False)
    poller = select.poll()
    poller.register(prepared.request, select.POLLOUT)
    poller.register(prepared.output, select.POLLIN)
    poller.register(prepared.process, select.POLLIN)  # readable when the process has ended
    alive, look = True, begun + LOOK_SECONDS
    while alive and outcome.ending == "exit":
        now = time.monotonic()
        if now - begun >= seconds:
            outcome.ending = "time"
            break
        if now >= look:
            size = reader.size
            if not _drain(prepared.result, reader):
                outcome.ending = "answer"
                break
            # With much output, a full pipe would block the run.
            look = now + (LOOK_SECONDS if reader.size - size < MUCH_BYTES else 0.0)
        wait = min(begun + seconds, look) - now
        for descriptor, happened in poller.poll(max(wait, 0.0) * 1000 + 1):
            if descriptor == prepared.process:
                alive = False
            elif descriptor == prepared.request:
                try:
                    sent += os.write(descriptor, frame[sent : sent + (1 << 20)])
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    sent = len(frame)
                if sent == len(frame):
                    poller.unregister(descriptor)
                    os.close(descriptor)
                    prepared.request = -1
            elif happened & select.POLLIN:
                if not _drain(descriptor, printed):
                    outcome.ending = "output"
            else:
                poller.unregister(descriptor)
    outcome.seconds = time.monotonic() - begun
    if alive:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(prepared.process, signal.SIGKILL)
    # Read the rest, which shows how far the run came, however it ended.
    if outcome.ending == "exit" and not _drain(prepared.output, printed):
        outcome.ending = "output"
    if outcome.ending != "answer" and not _drain(prepared.result, reader):
        outcome.ending = "answer" if outcome.ending == "exit" else outcome.ending
    outcome.fault = bytes(printed.start).decode(errors="replace")
    _finish(prepared, outcome, reader)
    return outcome


def _drain(pipe: int, reader: Frames | Printed) -> bool:
    """Read what is in the pipe; return False above the limit."""
    with suppress(BlockingIOError):
        while content := os.read(pipe, 1 << 18):
            if not reader.add(content):
                return False
    return True


def _finish(prepared: Prepared, outcome: ExecutionResult, reader: Frames) -> None:
    if not prepared.ended.wait(GRACE_SECONDS):
        outcome.ending, outcome.fault = "fault", "the run could not be killed"
    end = prepared.end
    prepared.close()
    if end.get("gone"):
        outcome.ending, outcome.fault = "fault", "the zygote of the sandbox exited"
    elif end:
        outcome.status = os.waitstatus_to_exitcode(end["status"])
        outcome.cpu_seconds, outcome.peak_bytes = end["cpu"], end["peak"]
    outcome.events = reader.events()
    if outcome.ending == "exit" and not outcome.events:
        # The runner reports its start before it reads the submission.
        outcome.ending = "fault"
        outcome.fault = outcome.fault or "the run ended before it began"
