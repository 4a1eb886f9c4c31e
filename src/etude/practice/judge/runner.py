"""The untrusted side: runs one submission inside the sandbox and says what it answered.

Everything here may be changed by the submission, which shares the process. So nothing here is a
secret and nothing that it says is believed: the judge compares the answers itself. The request
holds the submission's source, how to call it and the arguments of the tests, never an answer.
"""

# What torch, NumPy and others leave untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
from __future__ import annotations

import builtins
import errno
import gc
import io
import itertools
import linecache
import os
import random
import sys
import time
import traceback
from types import ModuleType
from typing import Any

import numpy as np
import torch

from etude.practice.judge import sandbox
from etude.practice.protocol import LENGTHS, encode
from etude.practice.protocol import decode as _decode

NAME = "solution.py"
MOST_OUTPUT = 64 << 10


def read_frame(descriptor: int) -> bytes:
    """Read one whole frame; empty at the end of the file."""
    head = _read(descriptor, LENGTHS.size)
    if len(head) < LENGTHS.size:
        return b""
    header, body = LENGTHS.unpack(head)
    return head + _read(descriptor, header + body)


def _read(descriptor: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (part := os.read(descriptor, min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte to a pipe."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


class _Printed(io.TextIOBase):
    """What a test prints, kept up to a limit; the rest is counted only."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.size < MOST_OUTPUT:
            self.parts.append(text[: MOST_OUTPUT - self.size])
        self.size += len(text)
        return len(text)


def serve(request: int, result: int) -> None:
    """Wait for a request, run it, and answer a frame for each test and one at the end."""
    frame = read_frame(request)
    if not frame:
        return
    os.close(request)
    todo = _decode(frame)
    sandbox.limit_run(todo["seconds"], todo["memory"])

    unsaid: list[bytes] = []

    def say(**content: Any) -> None:
        unsaid.append(encode(content))

    def tell() -> None:
        """Write what was said: before each step, so that a run that dies shows where."""
        write_all(result, b"".join(unsaid))
        unsaid.clear()

    gc.enable()
    say(event="started")
    tell()
    printed = _Printed()
    sys.stdout = sys.stderr = printed  # type: ignore[assignment]
    try:
        _seed(todo["seed"])
        module = _load(todo["source"])
        call = _call(module, todo["entry"], todo["driver"])
    except BaseException as error:
        say(event="load", error=_describe(error), printed=_text(printed))
        tell()
        return
    say(event="loaded", printed=_text(printed))
    for test in todo["tests"]:
        say(event="test", index=test["index"])
        tell()
        say(event="answer", index=test["index"], **_run(call, test, todo))
    say(event="done")
    tell()


def _seed(seed: int) -> None:
    """Give every source of random numbers this test's seed: forks begin alike otherwise."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: for devices that are not there it keeps a formatted stack each time.
    torch.default_generator.manual_seed(seed)


def _load(source: str) -> ModuleType:
    linecache.cache[NAME] = (len(source), None, source.splitlines(keepends=True), NAME)
    code = compile(source, NAME, "exec", dont_inherit=True)
    module = ModuleType("solution")
    module.__file__ = NAME
    sys.modules["solution"] = module
    exec(code, module.__dict__)
    return module


class _NoEntryError(Exception):
    """The submission does not define what the problem asks for."""


def _call(module: ModuleType, entry: str, driver: str | None) -> Any:
    found = getattr(module, entry, None)
    if not callable(found):
        raise _NoEntryError(f"there is no {entry} in the submission")
    if driver is None:
        return found
    drivers = ModuleType("driver")
    exec(compile(driver, "driver.py", "exec", dont_inherit=True), drivers.__dict__)

    def drive(*arguments: Any) -> Any:
        return drivers.drive(module, *arguments)

    return drive


def _run(call: Any, test: dict[str, Any], todo: dict[str, Any]) -> dict[str, Any]:
    """Return what one test gave: an answer or an error, what was printed, what was changed."""
    printed = _Printed()
    sys.stdout = sys.stderr = printed  # type: ignore[assignment]
    arguments = _decode(test["arguments"])
    again = _decode(test["arguments"]) if todo["twice"] else None
    found: dict[str, Any] = {}
    begun = time.perf_counter()
    try:
        _seed(test["seed"])
        found["answer"] = encode(call(*arguments))
        if again is not None:
            _seed(test["seed"] + 1)
            found["second"] = encode(call(*again))
    except BaseException as error:
        found = {"error": _describe(error)}
    found["seconds"] = time.perf_counter() - begun
    found["mutated"] = _mutated(arguments, test["arguments"], todo["mutable"])
    found["printed"] = _text(printed)
    return found


def _mutated(arguments: list[Any], frame: bytes, mutable: list[int]) -> list[int]:
    """Return which of the arguments are no longer what came in `frame`, but for `mutable` ones."""
    if encode(arguments) == frame:
        return []
    return [
        index
        for index, (old, argument) in enumerate(zip(_decode(frame), arguments, strict=True))
        if index not in mutable and encode(argument) != encode(old)
    ]


def _text(printed: _Printed) -> dict[str, Any]:
    return {"text": "".join(printed.parts), "size": printed.size}


def _describe(error: BaseException) -> dict[str, Any]:
    """Return an exception as data: its classes, message and the learner's own lines."""
    lines = [
        {"line": frame.lineno or 0, "name": frame.name, "code": (frame.line or "")[:200]}
        for frame in traceback.extract_tb(error.__traceback__, limit=400)
        if frame.filename == NAME
    ]
    if isinstance(error, SyntaxError) and error.filename == NAME:
        lines.append(
            {"line": error.lineno or 0, "name": "", "code": (error.text or "").rstrip()[:200]}
        )
    try:
        message = str(error)
    except BaseException:
        message = "(an exception whose text cannot be made)"
    denied = isinstance(error, PermissionError) and error.errno in (errno.EPERM, errno.EACCES)
    # Of the submission itself, which has no lines where it is not even text.
    syntax = isinstance(error, SyntaxError) and (error.filename == NAME or not lines)
    memory = isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in message
    )
    return {
        "classes": [kind.__name__ for kind in type(error).__mro__ if kind.__module__ != __name__],
        "message": message[:500],
        "lines": lines[-8:],
        "kind": "entry"
        if isinstance(error, _NoEntryError)
        else "denied"
        if denied
        else "memory"
        if memory
        else "syntax"
        if syntax
        else "error",
    }


def close_others(keep: set[int]) -> None:
    """Close every descriptor but `keep`, and point 0 at nothing and 1 and 2 at the output pipe."""
    for low, high in _gaps(sorted(keep | {0, 1, 2}), os.sysconf("SC_OPEN_MAX")):
        os.closerange(low, high)


def _gaps(kept: list[int], end: int) -> list[tuple[int, int]]:
    edges = [-1, *kept, min(end, 4096)]
    return [(low + 1, high) for low, high in itertools.pairwise(edges) if high > low + 1]


def forget_builtins() -> None:
    """Take away what has no meaning here and would only wait for ever."""

    def refuse(*_: object) -> str:
        raise EOFError("there is nobody to answer")

    builtins.input = refuse
