"""Files that a person names on the command line for a command to write."""

from __future__ import annotations

from pathlib import Path

import typer


def write_output(file: Path, text: str, *, to_stderr: bool = False) -> None:
    """Write `text` whole, or leave what was there, and say where it is.

    Args:
        file: as the person named it.
        text: its content.
        to_stderr: whether standard output has something that programs read.

    Raises:
        RunError: it cannot be written.
    """
    from etude.core.atomic_files import disk_reason, replace_output
    from etude.core.errors import RunError

    try:
        replace_output(file, text)
    except OSError as error:
        raise RunError(f"cannot write {file}: {disk_reason(error)}") from None
    typer.echo(f"written to {file}", err=to_stderr)
