"""What is recorded and said of a run that failed, and what of it is kept."""

from __future__ import annotations

from contextlib import suppress

from etude.core.atomic_files import disk_reason, is_disk_full
from etude.core.errors import DivergedError, EtudeError, RunError, innermost_reason
from etude.tuning.report.page import write_report
from etude.tuning.runs.folder import RunFolder, remove_run


def note_failure(folder: RunFolder, error: BaseException, *, new: bool) -> None:
    """Record why a run ended; a new one that has not trained a step leaves nothing behind."""
    if new and not folder.has_steps():
        with suppress(RunError):
            remove_run(folder)
        return
    # A full disk may refuse the record as well; the error itself is what the user must see.
    with suppress(RunError):
        if isinstance(error, DivergedError):
            folder.set_state("diverged", str(error))
            write_report(folder)
        elif isinstance(error, KeyboardInterrupt):
            folder.set_state("stopped", "interrupted outside of training")
        elif isinstance(error, EtudeError):
            folder.set_state("failed", str(error))
        else:
            folder.set_state("failed", f"{type(error).__name__}: {innermost_reason(error)}")


def disk_error_message(error: OSError, folder: RunFolder) -> str:
    """Return why a file could not be read or written, and what of the run is kept."""
    where = f" {error.filename}" if error.filename else ""
    kept = (
        f"the checkpoints in {folder.path} are intact: free some space and resume"
        if is_disk_full(error) and folder.path.exists()
        else "nothing was trained yet"
        if not folder.path.exists()
        else f"the checkpoints in {folder.path} are intact"
    )
    return f"cannot read or write{where}: {disk_reason(error)}; {kept}"
