"""Command line of the fake arXiv server, `python -m etude.papers.fake_arxiv`.

Example, in two terminals:

    python -m etude.papers.fake_arxiv --generated 500 --now 2026-05-05T12:00 --port 8123
    ETUDE_ARXIV=http://127.0.0.1:8123 etude papers sync

To simulate failures:

    curl '127.0.0.1:8123/replay/faults?add=oai:429=7x3'
    curl '127.0.0.1:8123/replay/clock?now=2026-05-06T12:00'
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from etude.core.errors import EtudeError
from etude.papers.calendar import feed_day, last_feed
from etude.papers.fake_arxiv.faults import KINDS
from etude.papers.fake_arxiv.oai import Pages
from etude.papers.fake_arxiv.server import ReplayServer
from etude.papers.fake_arxiv.world import LATER_DAYS, generated, recorded


def _arguments() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {kind:9} {text}" for kind, text in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m etude.papers.fake_arxiv",
        description=__doc__,
        epilog=f"faults are written WHERE:KIND[=VALUE][xTIMES], WHERE being rss, oai, query or "
        f"any, TIMES a number or *:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, help="folder with corpus.jsonl.xz, days, versions.json"
    )
    parser.add_argument("--generated", type=int, metavar="N", help="N synthetic papers")
    parser.add_argument("--since", type=date.fromisoformat, help="first day of the data")
    parser.add_argument("--until", type=date.fromisoformat, help="last day of the data")
    parser.add_argument(
        "--first",
        type=date.fromisoformat,
        help="first day of synthetic papers; by default the last day is today",
    )
    parser.add_argument("--days", type=int, default=5, help="number of days of synthetic papers")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--now", type=datetime.fromisoformat, help="the server's time, UTC")
    parser.add_argument("--faults", nargs="*", default=[], metavar="FAULT")
    parser.add_argument("--page", type=int, default=2500, help="records per page of OAI-PMH")
    return parser


def _first_day(days: int) -> date:
    """Return the first day of synthetic papers whose last event is today."""
    day = last_feed(feed_day(datetime.now(UTC)))
    for _ in range(days + LATER_DAYS - 1):
        day = last_feed(day - timedelta(days=1))
    return day


def main() -> int:
    """Serve until Ctrl-C."""
    parser = _arguments()
    chosen = parser.parse_args()
    if (chosen.data is None) == (chosen.generated is None):
        parser.error("give either --data FOLDER or --generated N")
    try:
        if chosen.data is not None:
            world = recorded(chosen.data, since=chosen.since, until=chosen.until)
        else:
            first = chosen.first or _first_day(chosen.days)
            world = generated(chosen.generated, first=first, days=chosen.days)
        now = chosen.now.replace(tzinfo=chosen.now.tzinfo or UTC) if chosen.now else None
        server = ReplayServer(
            world,
            now=now,
            port=chosen.port,
            faults=chosen.faults,
            pages=Pages(records=chosen.page),
        )
    except EtudeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    days = world.days()
    with server:
        print(f"{len(world.papers)} papers of {days[0]} to {days[-1]} at {server.address}")
        print(f"ETUDE_ARXIV={server.address}; the time is {server.moment():%Y-%m-%d %H:%M} UTC")
        sys.stdout.flush()
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
