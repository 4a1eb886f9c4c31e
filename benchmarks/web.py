"""How fast is the app of `etude up`, and what does it hold?

    python benchmarks/web.py [--seconds 20] [--pages 40] [--submissions 5] [--streams 500]
                             [--browser PATH] [--json FILE]

One server, started as a person starts it on an empty data folder, and its client on the same
machine, so the client's work is in all figures:

- **start**: from the command to the link on the terminal, and to the first paint of Today in
  Chromium (its own start is not counted: it is there already);
- **idle memory** of the server, after each room was visited once;
- **pages**: each room in turn, so many a second by the clock whatever the answers take (an open
  loop: one that is late still counts from the moment at which it was due), and beside them
  submissions of a right answer, which the judge's process judges; latency's median, 95th percentile
  and maximum, what failed, and submissions that got no verdict;
- **streams**: the memory that so many idle streams of events add.

Goals: first paint under 2 s, idle under 150 MB, p95 under 150 ms at 40 pages and 5 submissions a
second on two cores with none lost, 500 streams under 150 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOMS = ("/", "/practise", "/papers", "/lab", "/models", "/progress", "/settings")
PROBLEM = "/practise/create-tensordataset"
AT_ONCE = 64
"""Requests that the client has open at most."""
PAINTED = """new Promise(done => {
  const found = () => performance.getEntriesByName("first-contentful-paint")[0];
  if (found()) return done(found().startTime);
  new PerformanceObserver(() => found() && done(found().startTime)).observe({type: "paint"});
})"""


def megabytes(process: psutil.Process) -> float:
    """Return the memory that is the process's own (its unique set), in MB."""
    return process.memory_full_info().uss / 1e6


class Server:
    """`etude up` on a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "etude", "up", "--no-browser"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, "ETUDE_HOME": str(folder / "home"), "ETUDE_DATABASE": ""},
        )
        assert self.process.stdout is not None
        said = ""
        while "token=" not in said:
            line = self.process.stdout.readline()
            if not line:
                sys.exit(f"etude up ended: {said}")
            said += line
        self.began, self.link_seconds = began, time.perf_counter() - began
        found = re.search(r"http://\S+/open\?token=\S+", said)
        assert found is not None
        self.link = found[0]
        self.base = self.link.partition("/open")[0]
        self.itself = psutil.Process(self.process.pid)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)


def first_paint(server: Server, browser: Any) -> tuple[dict[str, float], str]:
    """Open the link in a browser that runs; return the times, and the session's cookie."""
    context = browser.new_context()
    page = context.new_page()
    asked = time.perf_counter()
    page.goto(server.link)
    painted = page.evaluate(PAINTED) / 1000
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in context.cookies())
    context.close()
    seconds = {"link": server.link_seconds, "paint after asking": painted}
    # The navigation's clock begins when the link is opened.
    return {**seconds, "start to paint": asked - server.began + painted}, cookies


async def load(server: Server, cookie: str, args: argparse.Namespace) -> dict[str, Any]:
    """Ask for pages, and submit, by the clock."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    headers = {"Cookie": cookie, "Origin": server.base, "Accept-Encoding": "gzip"}
    latencies: list[float] = []
    lost: list[str] = []
    keys: list[str] = []
    async with httpx.AsyncClient(
        base_url=server.base, headers=headers, limits=limits, timeout=60
    ) as client:
        page = (await client.get(PROBLEM)).text
        csrf = re.search(r'name="csrf" value="(\w+)"', page)
        assert csrf is not None
        answer = next(Path(__file__).parents[1].glob("content/problems/*/create-tensordataset"))
        source = (answer / "solution.py").read_text("utf-8")
        form = {"csrf": csrf[1], "source": source, "tab": "b" * 16, "revision": 0}

        async def visit(path: str, due: float) -> None:
            try:
                found = await client.get(path)
                latencies.append(time.perf_counter() - due)
                if found.status_code != 200:
                    lost.append(f"{path} {found.status_code}")
            except httpx.HTTPError as error:
                lost.append(f"{path} {type(error).__name__}")

        async def submit() -> None:
            try:
                found = await client.post(f"{PROBLEM}/submit", data=form)
                key = re.search(r"of=(\w+)", found.headers.get("location", ""))
                if key:
                    keys.append(key[1])
                else:
                    lost.append(f"submission {found.status_code}")
            except httpx.HTTPError as error:
                lost.append(f"submission {type(error).__name__}")

        # One answer before the clock begins, so that the judge's process runs.
        await submit()
        tasks: set[asyncio.Task[None]] = set()
        start = time.perf_counter()
        pages, sent = round(args.seconds * args.pages), round(args.seconds * args.submissions)
        due = [(start + n / args.pages, ROOMS[n % len(ROOMS)]) for n in range(pages)]
        due += [(start + (n + 0.5) / args.submissions, "") for n in range(sent)]
        for at, path in sorted(due):
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            tasks.add(asyncio.create_task(visit(path, at) if path else submit()))
        await asyncio.gather(*tasks)
        seconds = time.perf_counter() - start
        waiting = await _unjudged(client, len(keys))
    ordered = sorted(latencies)
    return {
        "pages": len(latencies),
        "pages_per_second": len(latencies) / seconds,
        "median_ms": 1000 * statistics.median(ordered),
        "p95_ms": 1000 * ordered[int(0.95 * len(ordered))],
        "maximum_ms": 1000 * ordered[-1],
        "submissions": len(keys),
        "unjudged": waiting,
        "lost": lost,
    }


async def _unjudged(client: httpx.AsyncClient, sent: int, patience: float = 60) -> int:
    """Wait for verdicts; return how many submissions have none."""
    end = time.perf_counter() + patience
    waiting = sent
    while waiting and time.perf_counter() < end:
        page = (await client.get("/progress")).text
        found = re.search(r"in ([\d,]+) submissions?<", page)
        judged = int(found[1].replace(",", "")) if found else 0
        waiting = max(0, sent - judged) + page.count(">waiting<")
        await asyncio.sleep(0.25)
    return waiting


async def hold_streams(server: Server, cookie: str, count: int) -> dict[str, float]:
    """Open idle streams of events; return what they add to the server's memory."""
    port = int(server.base.rpartition(":")[2])
    before = megabytes(server.itself)
    request = (
        f"GET /events?since=runs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n"
        "Accept: text/event-stream\r\n\r\n"
    ).encode()

    async def begin() -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        status = await reader.readline()
        if b" 200 " not in status:
            sys.exit(f"a stream was refused: {status!r}")
        await reader.readuntil(b"news")
        return writer

    writers: list[asyncio.StreamWriter] = []
    for first in range(0, count, 50):
        writers += await asyncio.gather(*(begin() for _ in range(min(50, count - first))))
    added = megabytes(server.itself) - before
    for writer in writers:
        writer.close()
    return {"streams": count, "added_mb": added, "server_mb": before + added}


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pages", type=float, default=40, help="a second")
    parser.add_argument("--submissions", type=float, default=5, help="a second")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--browser", default=shutil.which("chromium"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=args.browser, args=["--no-sandbox"])
        server = Server(folder)
        stack.callback(server.close)
        start, cookie = first_paint(server, browser)
        browser.close()
        with httpx.Client(base_url=server.base, headers={"Cookie": cookie}) as client:
            for room in ROOMS:
                client.get(room).raise_for_status()
        idle = megabytes(server.itself)
        # Playwright's own loop occupies this thread.
        results: list[Any] = []

        def measure() -> None:
            results.append(asyncio.run(load(server, cookie, args)))
            results.append(asyncio.run(hold_streams(server, cookie, args.streams)))

        thread = threading.Thread(target=measure)
        thread.start()
        thread.join()
        pages, streams = results
    report = {"start_seconds": start, "idle_mb": idle, "pages": pages, "streams": streams}
    for name, value in start.items():
        print(f"{name:>20}  {value:.2f} s")
    print(f"{'idle memory':>20}  {idle:.0f} MB")
    print(
        f"{'pages':>20}  {pages['pages']} at {pages['pages_per_second']:.0f}/s: median "
        f"{pages['median_ms']:.0f} ms, p95 {pages['p95_ms']:.0f} ms, maximum "
        f"{pages['maximum_ms']:.0f} ms"
    )
    print(f"{'submissions':>20}  {pages['submissions']}, {pages['unjudged']} without a verdict")
    print(f"{'lost':>20}  {len(pages['lost'])} {', '.join(sorted(set(pages['lost'])))}")
    print(f"{'streams':>20}  {streams['streams']} idle ones add {streams['added_mb']:.0f} MB")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
