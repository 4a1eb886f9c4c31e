"""Collecting once a day: when papers are due by arXiv's calendar, and again soon where that failed.

Feeds change at midnight US Eastern, and what is read too early is yesterday's. So a day's papers
are asked for after `READY_HOUR`, at a minute that differs between installations, so that not all
of them ask at once.
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
"""After a run that failed."""
LONGEST_NAP = 60.0
"""Seconds after which the clock is looked at again: it may have been set, or the machine asleep."""


def own_minute() -> int:
    """Return this machine's minute of the hour, always the same."""
    return hashlib.sha256(uuid.getnode().to_bytes(8, "big")).digest()[0] % 60


def next_run(now: datetime, done: datetime | None, failed: bool, minute: int = 0) -> datetime:
    """When to collect next.

    Args:
        now: the present, with a time zone.
        done: when the last run ended; None where there was none, which is due at once.
        failed: whether it failed.
        minute: of the hour at which this installation asks.
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
        work: collects; False or an exception means that it failed.
        say: told when the next run will be.
        stop: ends it between runs.
        clock: seconds since 1970.
        minute: of the hour; this machine's own unless given.
    """
    stop = stop or threading.Event()
    minute = own_minute() if minute is None else minute
    done: datetime | None = None
    failed = False
    while not stop.is_set():
        now = datetime.fromtimestamp(clock(), UTC)
        if done is not None and done > now:
            done = now  # the clock was set back: no waiting for what it said before
        due = next_run(now, done, failed, minute)
        if due <= now:
            try:
                failed = not work()
            except Exception as error:  # tomorrow is another day: a collector does not end
                LOG.exception("collecting failed")
                if say is not None:
                    say(f"collecting failed: {error}")
                failed = True
            done = datetime.fromtimestamp(clock(), UTC)
            due = next_run(done, done, failed, minute)
            if say is not None:
                say(f"next at {due.astimezone():%a %Y-%m-%d %H:%M}")
            continue
        stop.wait(min((due - now).total_seconds(), LONGEST_NAP))


def in_background(
    work: Callable[[], bool], *, say: Callable[[str], None] | None = None
) -> threading.Event:
    """Run `every_day` in a thread that ends with the process; set the event to end it before."""
    stop = threading.Event()
    threading.Thread(
        target=every_day, args=(work,), kwargs={"say": say, "stop": stop}, daemon=True
    ).start()
    return stop
