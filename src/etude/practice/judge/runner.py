"""Runner of one submission inside the sandbox: the untrusted side of the judge.

The submission shares this process and may change anything in it. So nothing here is secret, and the
judge trusts none of its reports: it compares the answers itself. The request
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
    """Read one frame; empty at the end of the file."""
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
    """Output of a test, stored up to a limit and counted beyond it."""

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
    """Wait for a request, run it, and send a frame for each test and one at the end."""
    frame = read_frame(request)
    if not frame:
        return
    os.close(request)
    todo = _decode(frame)
    sandbox.limit_run(todo["seconds"], todo["memory"])

    unsent: list[bytes] = []

    def send(**content: Any) -> None:
        unsent.append(encode(content))

    def flush() -> None:
        """Write pending frames: before each step, so that a run that dies shows where."""
        write_all(result, b"".join(unsent))
        unsent.clear()

    gc.enable()
    send(event="started")
    flush()
    printed = _Printed()
    sys.stdout = sys.stderr = printed  # type: ignore[assignment]
    try:
        _seed(todo["seed"])
        module = _load(todo["source"])
        call = _call(module, todo["entry"], todo["driver"])
    except BaseException as error:
        send(event="load", error=_describe(error), printed=_text(printed))
        flush()
        return
    send(event="loaded", printed=_text(printed))
    for test in todo["tests"]:
        send(event="test", index=test["index"])
        flush()
        send(event="answer", index=test["index"], **_run(call, test, todo))
    send(event="done")
    flush()


def _seed(seed: int) -> None:
    """Seed every random number generator for this test: forks share their state otherwise."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: for absent devices it records a formatted stack each time.
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
    """The submission does not define the required function or class."""


def _call(module: ModuleType, entry: str, driver: str | None) -> Any:
    found = getattr(module, entry, None)
    if not callable(found):
        raise _NoEntryError(f"the submission does not define {entry}")
    if driver is None:
        return found
    drivers = ModuleType("driver")
    exec(compile(driver, "driver.py", "exec", dont_inherit=True), drivers.__dict__)

    def drive(*arguments: Any) -> Any:
        return drivers.drive(module, *arguments)

    return drive


def _run(call: Any, test: dict[str, Any], todo: dict[str, Any]) -> dict[str, Any]:
    """Return the result of one test: answer or error, output, mutated arguments."""
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
    """Return the indices of arguments that differ from `frame`, `mutable` ones excepted."""
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
        message = "(an exception that cannot be converted to text)"
    denied = isinstance(error, PermissionError) and error.errno in (errno.EPERM, errno.EACCES)
    # A syntax error of the submission, which has no lines if it is not even text.
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
    """Close every descriptor but `keep`; redirect 0 to /dev/null, 1 and 2 to the output pipe."""
    for low, high in _gaps(sorted(keep | {0, 1, 2}), os.sysconf("SC_OPEN_MAX")):
        os.closerange(low, high)


def _gaps(kept: list[int], end: int) -> list[tuple[int, int]]:
    edges = [-1, *kept, min(end, 4096)]
    return [(low + 1, high) for low, high in itertools.pairwise(edges) if high > low + 1]


def forget_builtins() -> None:
    """Disable built-ins that would only block for ever."""

    def refuse(*_: object) -> str:
        raise EOFError("there is no standard input")

    builtins.input = refuse
