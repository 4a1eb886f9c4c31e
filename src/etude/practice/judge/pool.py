"""Pool of sandbox slots, each with a process forked ahead of its next run.

A process is forked and confined before a submission arrives, so that a run starts at once. It is
discarded after the run and replaced.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

import fcntl
import json
import os
import queue
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from etude.core.errors import JudgeError
from etude.practice.judge.sandbox import LAYERS, Level
from etude.practice.judge.supervisor import ExecutionResult, Prepared, attend
from etude.practice.protocol import encode

START_SECONDS = 120
PREPARE_SECONDS = 20
PIPE_BYTES = 1 << 20
"""A request or an answer of up to this size passes without blocking either side."""


class Pool:
    """Runs submissions, as many at once as there are slots.

    Args:
        slots: number of runs at a time.
        require: required layers of isolation.
        python: the interpreter that submissions run in; this one by default.
        without: layers to disable, for tests and benchmarks.

    Raises:
        JudgeError: the sandbox does not start, or lacks a required layer.
    """

    def __init__(
        self,
        slots: int = 1,
        require: Sequence[str] = ("limits", "seccomp", "landlock"),
        python: str | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self.slots = slots
        self._require, self._python, self._without = (
            tuple(require),
            python or sys.executable,
            tuple(without),
        )
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._waiting: dict[int, Prepared] = {}
        self._known: dict[tuple[int, int], Prepared] = {}
        self._lock = threading.Lock()
        self._restarting = threading.Lock()
        self._runs = 0
        self._closed = False
        self._place = Path(tempfile.mkdtemp(prefix="etude-judge-"))
        self._place.chmod(0o755)
        self._start()
        for slot in range(slots):
            self._free.put(slot)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, request: dict[str, Any], seconds: float, memory: int, output: int = 64 << 10
    ) -> ExecutionResult:
        """Run one submission and return its result.

        Args:
            request: the request that `runner.serve` reads, without the limits.
            seconds: wall time from the moment that the request is sent.
            memory: bytes beyond the interpreter's own.
            output: bytes that may be written to the output pipe, bypassing `print`.
        """
        slot = self._free.get()
        try:
            prepared = self._take(slot)
            outcome = attend(
                prepared, encode(request | {"seconds": seconds, "memory": memory}), seconds, output
            )
        except (OSError, _ZygoteGoneError) as error:
            outcome = ExecutionResult(ending="fault", fault=f"{type(error).__name__}: {error}")
        finally:
            # The next process is forked while this answer is being checked.
            with suppress(OSError, _ZygoteGoneError):
                self._prepare(slot)
            self._free.put(slot)
        return outcome

    def close(self) -> None:
        """End every run and the zygote."""
        if self._closed:
            return
        self._closed = True
        self._control.close()
        with suppress(subprocess.TimeoutExpired):
            self._zygote.wait(5)
        self._zygote.kill()
        self._zygote.wait()
        self._reader.join(5)
        with suppress(OSError):
            self._place.rmdir()
        with self._lock:
            for prepared in self._known.values():
                prepared.close()
            self._known.clear()

    def _start(self) -> None:
        """Start a zygote and wait until it has imported everything."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).parents[3])
        code = (
            f"import sys; sys.path.insert(0, {root!r}); "
            f"from etude.practice.judge.zygote import main; main({theirs.fileno()})"
        )
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": f"{self._place}/box/run",
            "TMPDIR": f"{self._place}/box/run",
            "LANG": "C.UTF-8",
            "ETUDE_JUDGE": secrets.token_hex(4),
            "ETUDE_JUDGE_WITHOUT": ",".join(self._without),
        }
        self._zygote = subprocess.Popen(
            [self._python, "-I", "-c", code],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(START_SECONDS)
        try:
            hello = ours.recv(65536)
        except (TimeoutError, ConnectionResetError):
            hello = b""
        if not hello:
            self._zygote.kill()
            output = (
                self._zygote.stderr.read().decode(errors="replace").strip()
                if self._zygote.stderr
                else ""
            )
            raise JudgeError(
                f"the sandbox does not start: {output.splitlines()[-1] if output else 'no answer'}"
            )
        ready = json.loads(hello)
        self.level = Level(tuple(ready["layers"]), ready["landlock"])
        self.warm_seconds: float = ready["warm_seconds"]
        ours.settimeout(None)
        self._control = ours
        if lacking := [layer for layer in self._require if layer not in self.level.layers]:
            unknown = [layer for layer in lacking if layer not in LAYERS]
            self._closed = True
            ours.close()
            self._zygote.kill()
            self._zygote.wait()
            raise JudgeError(
                f"unknown layer {unknown[0]!r}; the layers are {', '.join(LAYERS)}"
                if unknown
                else f"this machine does not support {', '.join(lacking)}: {self.level.describe()}"
            )
        self._reader = threading.Thread(
            target=self._listen, args=(ours,), name="judge-zygote", daemon=True
        )
        self._reader.start()

    def _listen(self, control: socket.socket) -> None:
        """Dispatch the zygote's messages until it exits."""
        while True:
            try:
                content, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
            except OSError:
                content, descriptors = b"", []
            if not content:
                break
            message = json.loads(content)
            with self._lock:
                key = (message["slot"], message["run"])
                prepared = self._known.get(key)
                if message["op"] == "ended":
                    self._known.pop(key, None)
            if prepared is None:
                for descriptor in descriptors:
                    os.close(descriptor)
            elif message["op"] == "prepared":
                prepared.process = descriptors[0]
                prepared.ready.set()
            else:
                prepared.end = message
                prepared.ended.set()
                prepared.ready.set()
        with self._lock:
            left = list(self._known.values())
            self._known.clear()
        for prepared in left:
            prepared.end = {"gone": True}
            prepared.ready.set()
            prepared.ended.set()

    def _prepare(self, slot: int) -> Prepared:
        """Request a process for `slot`'s next run."""
        pipes = [os.pipe() for _ in range(3)]
        (theirs_request, request), (result, theirs_result), (output, theirs_output) = pipes
        with suppress(OSError):  # above the user's limit; then more writes are needed
            fcntl.fcntl(request, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            fcntl.fcntl(result, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with self._lock:
            self._runs += 1
            prepared = Prepared(self._runs, request, result, output)
            self._known[slot, prepared.run] = prepared
            self._waiting[slot] = prepared
        try:
            # The memory limit of the whole group is that of the largest problem.
            message = {"op": "prepare", "slot": slot, "run": prepared.run, "memory": 1 << 31}
            socket.send_fds(
                self._control,
                [json.dumps(message).encode()],
                [theirs_request, theirs_result, theirs_output],
            )
        except OSError as error:
            with self._lock:
                self._known.pop((slot, prepared.run), None)
                self._waiting.pop(slot, None)
            prepared.close()
            raise _ZygoteGoneError(str(error)) from error
        finally:
            for descriptor in (theirs_request, theirs_result, theirs_output):
                os.close(descriptor)
        return prepared

    def _take(self, slot: int) -> Prepared:
        """Return the prepared process of `slot`; restart the zygote if it has died."""
        for _ in range(2):
            try:
                prepared = self._waiting.pop(slot, None) or self._prepare(slot)
            except _ZygoteGoneError:
                self._restart()
                continue
            self._waiting.pop(slot, None)
            if not prepared.ready.wait(PREPARE_SECONDS):
                prepared.close()
                raise _ZygoteGoneError("the sandbox was not ready in time")
            if prepared.process >= 0 and not prepared.ended.is_set():
                return prepared
            prepared.close()
            if prepared.end.get("gone"):
                self._restart()
        return self._last_try(slot)

    def _last_try(self, slot: int) -> Prepared:
        prepared = self._prepare(slot)
        self._waiting.pop(slot, None)
        if not prepared.ready.wait(PREPARE_SECONDS) or prepared.process < 0:
            prepared.close()
            raise _ZygoteGoneError("no sandbox could be created")
        return prepared

    def _restart(self) -> None:
        with self._restarting:
            if self._closed:
                raise _ZygoteGoneError("the judge is closed")
            if self._zygote.poll() is None and self._reader.is_alive():
                return  # another slot has already restarted it
            self._control.close()
            self._zygote.kill()
            self._zygote.wait()
            self._start()


class _ZygoteGoneError(Exception):
    """The process that makes sandboxes has died or does not answer."""
