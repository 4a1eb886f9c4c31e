"""Writing a model folder that is there whole or not at all.

It is written beside its place under a name of its own, checked by whoever writes it, and renamed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from etude.core.errors import RunError
from etude.tuning.models.load import ModelOrigin


def refuse_existing(output: Path, overwrite: bool) -> None:
    """Refuse a place that holds something, unless it is a model that may be replaced.

    Raises:
        RunError: saying which of the two.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise RunError(f"{output} is there already; choose another folder, or --force to replace")
    if not (output / "config.json").is_file():
        raise RunError(f"{output} is no model folder, so it is not replaced; choose another")


def refuse_base_folder(output: Path, origin: ModelOrigin) -> None:
    """Refuse to replace the model that is being read.

    Raises:
        RunError: `output` is its folder or holds it.
    """
    source = Path(origin.path).resolve()
    if output.resolve() == source or output.resolve() in source.parents:
        raise RunError(f"{output} holds the base model itself; choose another folder")


def write_aside(output: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a new folder beside `output` and return that folder.

    Raises:
        RunError: it cannot be written; nothing is left.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise RunError(f"cannot write {output}: {error.strerror}") from None
    try:
        write(aside)
        # Temporary folders, and files that some libraries write, are for their owner only.
        aside.chmod(0o755)
        for file in aside.iterdir():
            file.chmod(0o644)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if _is_disk_error(error):
            reason = str(error).splitlines()[0]
            raise RunError(f"cannot write {output}: {reason}; nothing is left there") from None
        raise
    return aside


def move(aside: Path, output: Path) -> None:
    """Put the finished folder in its place; the old one goes only when the new one is there.

    Raises:
        RunError: it cannot be moved; the old one is as it was.
    """
    old = aside.with_name(f"{aside.name}.old")
    try:
        if output.exists():
            output.rename(old)
        try:
            aside.rename(output)
        except OSError:
            if old.exists():
                old.rename(output)
            raise
    except OSError as error:
        raise RunError(f"cannot write {output}: {error.strerror}") from None
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def no_bars() -> Generator[None]:
    """Silence the bars that transformers draws by itself; `Progress` speaks for all."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _is_disk_error(error: BaseException) -> bool:
    """Return whether the system refused; safetensors reports that as an error of its own."""
    return isinstance(error, OSError) or "os error" in str(error)
