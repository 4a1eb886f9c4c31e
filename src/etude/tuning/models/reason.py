"""What another library's exception says, cut down to the one line that a message can quote."""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """Return the first line of the innermost cause, or its type where it says nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
