"""Errors of a model's own code, which is transformers' or its author's, as one line.

What such code raises is no bug of Etude that a traceback would help to find, and says little
without the place: the line names the module of the model that was running.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, cast

from torch import nn

from etude.core.errors import EtudeError, ModelError, innermost_reason

_OURS, _LIBRARIES = "etude.", ("torch.", "transformers.utils.")


@contextmanager
def foreign_code(model: Any) -> Generator[None]:
    """Context manager: an exception raised inside a model's own code becomes a `ModelError`.

    Errors of Etude, of its own code called by the model (adapters, attention), and of memory pass
    through: those are its own to explain.
    """
    try:
        yield
    except (EtudeError, MemoryError):
        raise
    except Exception as error:
        frames = _frames(error.__traceback__)
        modules = cast("list[tuple[str, nn.Module]]", list(model.named_modules()))
        names = {id(module): name for name, module in modules}
        inside = [names[id(owner)] for _, owner in frames if id(owner) in names]
        if not inside or frames[-1][0].startswith(_OURS):
            raise
        raise ModelError(_line(type(model).__name__, inside[-1], error)) from error


def _line(kind: str, module: str, error: Exception) -> str:
    where = f"{kind}, {module}" if module else kind
    return (
        f"{where}: the model's own code fails with {type(error).__name__}: "
        f"{innermost_reason(error)}; ETUDE_DEBUG=1 shows where"
    )


def _frames(trace: TracebackType | None) -> list[tuple[str, Any]]:
    """Return the Python modules of a traceback and the `self` of each frame, without torch's."""
    found: list[tuple[str, Any]] = []
    while trace is not None:
        name: str = trace.tb_frame.f_globals.get("__name__", "")
        if not f"{name}.".startswith(_LIBRARIES):
            found.append((f"{name}.", trace.tb_frame.f_locals.get("self")))
        trace = trace.tb_next
    return found
