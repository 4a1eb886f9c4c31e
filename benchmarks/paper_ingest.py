"""How fast papers come from a replay into the database and the full-text index.

    python benchmarks/paper_ingest.py [--papers 20000] [--data ../shared/data/papers] [--profile]

The server runs in a process of its own, with arXiv's page sizes. The gate's pause is off, which it
allows on this machine only: at arXiv's own pace, one page of 2,500 records every three seconds, the
network is what is waited for. Printed are papers (each counted once, though a cross-listed one
comes in several sets) a second of the whole run, and where the time went.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from etude.papers.arxiv.rate_limited_client import RateLimitedClient
from etude.papers.library import Library
from etude.papers.search import Index
from etude.papers.search.background_indexer import BackgroundIndexer
from etude.papers.settings import Settings
from etude.papers.sync import sync
from etude.store.engine import open_store

SINCE, NOW = date(2025, 6, 1), datetime(2026, 5, 30, 12, tzinfo=UTC)


class Watch:
    """Seconds spent in some calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def around(self, name: str, call: Any) -> Any:
        """`call`, with its time counted under `name`."""

        def timed(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                gone = time.perf_counter() - begin
                self.seconds[name] = self.seconds.get(name, 0.0) + gone

        return timed


def serve(data: Path, papers: int) -> tuple[subprocess.Popen[str], str]:
    code = (
        "import sys, time\nfrom datetime import date, datetime\nfrom pathlib import Path\n"
        "from etude.papers.fake_arxiv import ReplayServer, generated, recorded\n"
        "data, papers, since, now = sys.argv[1:]\n"
        "world = (recorded(Path(data), since=date.fromisoformat(since), most=int(papers))\n"
        "         if Path(data).is_dir() else generated(int(papers), days=200,\n"
        "                                               first=date(2025, 7, 1)))\n"
        "server = ReplayServer(world, now=datetime.fromisoformat(now)).start()\n"
        "for name in ('cs:cs:CV', 'cs:cs:CL'): world.in_set(server.moment(), name)\n"
        "print(server.address, len(world.papers), flush=True)\n"
        "time.sleep(3600)\n"
    )
    command = [sys.executable, "-c", code, str(data), str(papers), str(SINCE), NOW.isoformat()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address, count = process.stdout.readline().split()
    print(f"{count} papers served, {'recorded' if data.is_dir() else 'generated'}")
    return process, address


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--papers", type=int, default=20_000)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/papers"))
    parser.add_argument("--database", help="address; a new SQLite file unless given")
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    process, address = serve(chosen.data, chosen.papers)
    try:
        with tempfile.TemporaryDirectory() as name:
            measure(chosen, address, Path(name))
    finally:
        process.kill()


def measure(chosen: argparse.Namespace, address: str, folder: Path) -> None:
    engine = open_store(chosen.database or f"sqlite:///{folder / 'papers.sqlite3'}")
    library, watch = Library(engine), Watch()
    settings = replace(Settings().at(address), first_days=365)
    profile = cProfile.Profile() if chosen.profile else None
    with RateLimitedClient(settings, folder=folder) as gate:
        gate._send = watch.around("waiting for the server", gate._send)
        library.put_in = watch.around("storing", library.put_in)
        if profile:
            profile.enable()
        begin, used = time.perf_counter(), time.process_time()
        index = Index(folder / "index", library)
        with BackgroundIndexer(index.folder, library) as along:
            report = sync(
                library,
                settings,
                clock=NOW.timestamp,
                folder=folder,
                gate=gate,
                show=lambda step: along.came(step.papers),
            )
        synced = time.perf_counter()
        index.refresh()
        end, used = time.perf_counter(), time.process_time() - used
        if profile:
            profile.disable()
    assert not report.failed, report.lines()
    count = library.count()
    assert index.count() == count, index.count()
    print("\n".join(report.lines()))
    for name, seconds in watch.seconds.items():
        print(f"{name:24} {seconds:6.2f} s")
    waited = watch.seconds["waiting for the server"]
    rest = synced - begin - sum(watch.seconds.values())
    print(f"{'parsing and the rest':24} {rest:6.2f} s")
    print(f"{'index':24} {end - synced:6.2f} s")
    print(f"{'all':24} {end - begin:6.2f} s for {count} papers")
    print(
        f"{count / (end - begin):.0f} papers/s; {count / (end - begin - waited):.0f} papers/s "
        f"without waiting for the replay; {count / used:.0f} papers a second of this process's CPU"
    )
    if profile:
        pstats.Stats(profile).sort_stats("cumtime").print_stats(
            "etude|executemany|fetch|commit", 45
        )
    engine.dispose()


if __name__ == "__main__":
    main()
