"""The process of one job: `python -m etude.app.job_process FOLDER LOCK`.

It locks the run, records that it works on it, and releases the queue's lock, which it inherited;
only then does it import what training needs.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.app.jobs import advance
from etude.core.errors import EtudeError, RunError

if TYPE_CHECKING:
    from etude.tuning.runs.folder import RunFolder


def main(arguments: list[str]) -> int:
    """Work on a queued run until it ends.

    Args:
        arguments: the run's folder, and the descriptor of the queue's lock.

    Returns:
        0 if it finished, 130 if it was stopped, else 1.
    """
    from etude.tuning.runs.folder import RunFolder

    # As Ctrl-C: what is at work stops at a safe point, or ends where there is nothing to save.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = RunFolder(Path(arguments[0]))
    try:
        begun = _begin(folder)
    except KeyboardInterrupt:
        return 130
    except EtudeError as error:
        _say(str(error))
        return 1
    finally:
        os.close(int(arguments[1]))
    if not begun:
        folder.release()
        return 0
    # More than one may run at once.
    _advance(folder.path.parent)
    try:
        return _work(folder)
    finally:
        folder.release()
        _advance(folder.path.parent)


def _begin(folder: RunFolder) -> bool:
    """Lock the run and record that this process works on it, unless it has left the queue."""
    folder.lock()
    if folder.state != "queued":
        return False
    folder.clear_stop()
    folder.set_state("starting")
    with suppress(RunError):
        folder.name_latest()
    _say(f"process {os.getpid()} begins")
    return True


def _work(folder: RunFolder) -> int:
    try:
        finished = _search(folder) if folder.is_search else _train(folder)
    except KeyboardInterrupt:
        if folder.state_record().get("state") in ("starting", "running"):
            _record(folder, "stopped", "stopped before training began")
        _say("stopped")
        return 130
    except BaseException as error:
        if not isinstance(error, EtudeError):
            traceback.print_exc()
        if folder.state_record().get("state") in ("starting", "running"):
            _record(folder, "failed", str(error) or type(error).__name__)
        _say(f"error: {error}")
        return 1
    _say("finished" if finished else "stopped, to be resumed")
    return 0 if finished else 130


def _train(folder: RunFolder) -> bool:
    """Train to the end; return whether the run finished."""
    from etude.app.run_queue import read_order
    from etude.app.tune import plan_resumption, start
    from etude.tuning.report.terminal import TerminalView

    order = read_order(folder)
    plan = plan_resumption(str(folder.path), overrides=order.get("overrides") or ())
    assert plan.resume is not None
    view = TerminalView()
    run = start(
        # The folder that this process has locked.
        type(plan)(plan.recipe, folder, plan.notes, plan.extend),
        base=folder.path.parent,
        callbacks=[view],
        progress=view.progress,
        ignore_memory=bool(order.get("ignore_memory")),
    )
    return run.finished


def _search(folder: RunFolder) -> bool:
    """Search to the end; return whether the search finished."""
    from etude.app import search
    from etude.app.run_queue import read_order
    from etude.tuning.search.view import SearchView

    settings: dict[str, Any] = read_order(folder).get("search") or {}
    plan = search.plan_search_resumption(str(folder.path), settings=settings)
    view = SearchView(plan.space.settings, [one.key for one in plan.space.ranges])
    with search.stopped_by_signals(view.on_message) as stopping:
        result = search.start(
            # The folder that this process has locked.
            replace(plan, resume=folder),
            base=folder.path.parent,
            view=view,
            stopping=stopping,
        )
    return result.finished


def _record(folder: RunFolder, state: str, detail: str) -> None:
    # What cannot be recorded is in the log; a reader sees that the process is gone.
    with suppress(RunError):
        folder.set_state("stopped" if state == "stopped" else "failed", detail)


def _advance(base: Path) -> None:
    try:
        advance(base)
    except (EtudeError, OSError) as error:
        _say(f"the queue cannot go on: {error}")


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
