"""Daily schedule of syncs by arXiv's calendar, with retries after failures.

Feeds change at midnight US Eastern, and a feed read too early is yesterday's. So a day's papers are
fetched after `READY_HOUR`, at a minute that differs between installations to spread the load.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time

from etude.papers.calendar import EASTERN, READY_HOUR, feed_day, next_feed, no_feed

LOG = logging.getLogger(__name__)
AGAIN = timedelta(hours=1)
"""Delay after a failed run."""
LONGEST_NAP = 60.0
"""Seconds between checks of the clock, which may be set while the machine sleeps."""


def own_minute() -> int:
    """Return this machine's minute of the hour, which never changes."""
    return hashlib.sha256(uuid.getnode().to_bytes(8, "big")).digest()[0] % 60


def next_run(now: datetime, done: datetime | None, failed: bool, minute: int = 0) -> datetime:
    """Return the time of the next run.

    Args:
        now: the current time, with a time zone.
        done: end of the last run; None if there was none, in which case a run is due at once.
        failed: whether it failed.
        minute: minute of the hour of this installation's requests.
    """
    if done is None:
        return now
    if failed:
        return done + AGAIN
    day = feed_day(done)
    due = datetime.combine(day, clock_time(READY_HOUR, minute), EASTERN)
    if no_feed(day) is None and done < due:
        return due.astimezone(UTC)
    return datetime.combine(next_feed(day), due.time(), EASTERN).astimezone(UTC)


def every_day(
    work: Callable[[], bool],
    *,
    say: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.time,
    minute: int | None = None,
) -> None:
    """Call `work` now and whenever papers are due, until `stop` is set.

    Args:
        work: collects the papers; False or an exception means failure.
        say: called with a line about the next run.
        stop: ends it between runs.
        clock: seconds since 1970.
        minute: minute of the hour; this machine's own unless given.
    """
    stop = stop or threading.Event()
    minute = own_minute() if minute is None else minute
    done: datetime | None = None
    failed = False
    while not stop.is_set():
        now = datetime.fromtimestamp(clock(), UTC)
        if done is not None and done > now:
            done = now  # the clock was set back: do not wait for the old time
        due = next_run(now, done, failed, minute)
        if due <= now:
            try:
                failed = not work()
            except Exception as error:  # a failure does not end the schedule
                LOG.exception("collecting failed")
                if say is not None:
                    say(f"collecting failed: {error}")
                failed = True
            done = datetime.fromtimestamp(clock(), UTC)
            due = next_run(done, done, failed, minute)
            if say is not None:
                say(f"next run at {due.astimezone():%a %Y-%m-%d %H:%M}")
            continue
        stop.wait(min((due - now).total_seconds(), LONGEST_NAP))


def in_background(
    work: Callable[[], bool], *, say: Callable[[str], None] | None = None
) -> threading.Event:
    """Run `every_day` in a thread that ends with the process; set the event to end it earlier."""
    stop = threading.Event()
    threading.Thread(
        target=every_day, args=(work,), kwargs={"say": say, "stop": stop}, daemon=True
    ).start()
    return stop
