"""A line beside the output that says that something goes on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def working(what: str) -> Generator[Callable[[str], None]]:
    """Show what goes on until the block ends; what it yields changes the line."""
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …") as status:
        yield lambda text: status.update(f"{' '.join(text.split())} …")
