"""Atomic writing of model folders.

A folder is written beside its destination under a temporary name, verified by the caller, and
renamed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from etude.core.atomic_files import make_folder_aside, replace_folder
from etude.core.errors import RunError
from etude.tuning.models.load import ModelOrigin


def refuse_existing(output: Path, overwrite: bool) -> None:
    """Refuse an existing destination, unless it is a model that may be overwritten.

    Raises:
        RunError: the destination exists, or is not a model folder.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise RunError(f"{output} already exists; choose another, or replace it with --force")
    if not (output / "config.json").is_file():
        raise RunError(f"{output} is not a model folder, so it is not replaced; choose another")


def refuse_base_folder(output: Path, origin: ModelOrigin) -> None:
    """Refuse to overwrite the model that is being read.

    Raises:
        RunError: `output` is its folder or contains it.
    """
    source = Path(origin.path).resolve()
    if output.resolve() == source or output.resolve() in source.parents:
        raise RunError(f"{output} contains the base model itself; choose another folder")


def write_aside(output: Path, write: Callable[[Path], None]) -> Path:
    """Call `write` on a new folder beside `output` and return that folder.

    Raises:
        RunError: the folder cannot be written; it is removed.
    """
    try:
        aside = make_folder_aside(output)
    except OSError as error:
        raise RunError(f"cannot write {output}: {error.strerror}") from None
    try:
        write(aside)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if _is_disk_error(error):
            reason = str(error).splitlines()[0]
            raise RunError(f"cannot write {output}: {reason}; nothing is left there") from None
        raise
    return aside


def move(aside: Path, output: Path) -> None:
    """Move the finished folder to its destination; the old one is removed last.

    Raises:
        RunError: the folder cannot be moved; the old one is unchanged.
    """
    try:
        replace_folder(aside, output)
    except OSError as error:
        raise RunError(f"cannot write {output}: {error.strerror}") from None


@contextmanager
def no_bars() -> Generator[None]:
    """Context manager: disable transformers' own progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _is_disk_error(error: BaseException) -> bool:
    """Return whether an error is an I/O error; safetensors has its own type for these."""
    return isinstance(error, OSError) or "os error" in str(error)
