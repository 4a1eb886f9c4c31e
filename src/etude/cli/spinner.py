"""A line on stderr that shows that work is in progress."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def working(what: str) -> Generator[Callable[[str], None]]:
    """Show a spinner until the block ends; the function it yields changes the text."""
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …") as status:
        yield lambda text: status.update(f"{' '.join(text.split())} …")
