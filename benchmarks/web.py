"""How fast is the app of `etude up`, and what does it hold?

    python benchmarks/web.py [--seconds 60] [--pages 40] [--submissions 5] [--streams 500]
                             [--flat-out 10] [--browser PATH] [--json FILE]

One server, started as a person starts it on an empty data folder, and its client on the same
machine, so the client's work is in all figures:

- **start**: from the command to the link on the terminal, and to the first paint of Today in
  Chromium (its own start is not counted: it is there already);
- **bytes** that the browser is sent for each room, on a first visit with an empty cache;
- **idle memory** of the server, after each room was visited once;
- **pages**: each room in turn, so many a second by the clock whatever the answers take (an open
  loop: one that is late still counts from the moment at which it was due), and beside them
  submissions of a right answer, which the judge's process judges; latency's median, 95th percentile
  and maximum, what failed, and submissions that got no verdict; the server's memory meanwhile, at
  the first quarter's end and at the end (`--seconds 600` shows whether it grows);
- **flat out**: pages a second where each of eight clients asks for the next page as soon as it has
  one;
- **streams**: the memory that so many idle streams of events add, and how many of them do not hear
  of a run that appears then.

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
CLIENTS = 8
"""Of them, where each asks as soon as it has its answer."""
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


def sent_bytes(server: Server, browser: Any, cookies: list[Any]) -> dict[str, int]:
    """Return the bytes that each room costs, headers included, in a browser that has none of it."""
    found: dict[str, int] = {}
    for path in (*ROOMS, PROBLEM):
        context = browser.new_context()
        context.add_cookies(cookies)
        page = context.new_page()
        requests: list[Any] = []

        def finished(request: Any, kept: list[Any] = requests) -> None:
            kept.append(request)  # Playwright marks its handlers: a bound method takes no mark

        page.on("requestfinished", finished)
        page.goto(server.base + path)
        page.wait_for_timeout(1000)  # for what its scripts ask for
        sizes = [request.sizes() for request in requests]
        found[path] = sum(one["responseHeadersSize"] + one["responseBodySize"] for one in sizes)
        context.close()
    return found


def first_paint(server: Server, browser: Any) -> tuple[dict[str, float], list[Any]]:
    """Open the link in a browser that runs; return the times, and the session's cookies."""
    context = browser.new_context()
    page = context.new_page()
    asked = time.perf_counter()
    page.goto(server.link)
    painted = page.evaluate(PAINTED) / 1000
    cookies = context.cookies()
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
        held: list[float] = []

        async def weigh() -> None:
            while True:
                held.append(megabytes(server.itself))
                await asyncio.sleep(1)

        weighing = asyncio.create_task(weigh())
        tasks: set[asyncio.Task[None]] = set()
        start = time.perf_counter()
        pages, sent = round(args.seconds * args.pages), round(args.seconds * args.submissions)
        due = [(start + n / args.pages, ROOMS[n % len(ROOMS)]) for n in range(pages)]
        due += [(start + (n + 0.5) / args.submissions, "") for n in range(sent)]
        for at, path in sorted(due):
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            tasks.add(asyncio.create_task(visit(path, at) if path else submit()))
        await asyncio.gather(*tasks)
        weighing.cancel()
        held.append(megabytes(server.itself))
        seconds = time.perf_counter() - start
        waiting = await _unjudged(client, len(keys))
        at_most = await _flat_out(client, args.flat_out, lost)
    ordered = sorted(latencies)
    return {
        "pages": len(latencies),
        "pages_per_second": len(latencies) / seconds,
        "median_ms": 1000 * statistics.median(ordered),
        "p95_ms": 1000 * ordered[int(0.95 * len(ordered))],
        "maximum_ms": 1000 * ordered[-1],
        "submissions": len(keys),
        "unjudged": waiting,
        "flat_out_pages_per_second": at_most,
        "memory_mb": {"first_quarter": held[len(held) // 4], "end": held[-1], "most": max(held)},
        "lost": lost,
    }


async def _flat_out(client: httpx.AsyncClient, seconds: float, lost: list[str]) -> float:
    """Ask for pages as fast as they come; return how many came a second."""
    end, count = time.perf_counter() + seconds, 0

    async def ask(first: int) -> None:
        nonlocal count
        number = first
        while time.perf_counter() < end:
            path = ROOMS[number % len(ROOMS)]
            found = await client.get(path)
            if found.status_code != 200:
                lost.append(f"{path} {found.status_code}")
            number, count = number + 1, count + 1

    began = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(CLIENTS)))
    return count / (time.perf_counter() - began)


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


async def hold_streams(server: Server, cookie: str, count: int, runs: Path) -> dict[str, float]:
    """Open idle streams of events; return what they add to the server's memory, and who is deaf."""
    from etude.tuning.runs.folder import RunFolder

    port = int(server.base.rpartition(":")[2])
    before = megabytes(server.itself)
    request = (
        f"GET /events?since=runs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n"
        "Accept: text/event-stream\r\n\r\n"
    ).encode()

    async def begin() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        status = await reader.readline()
        if b" 200 " not in status:
            sys.exit(f"a stream was refused: {status!r}")
        await reader.readuntil(b'"to"')  # it is watched now
        return reader, writer

    async def hears(reader: asyncio.StreamReader) -> bool:
        try:
            await asyncio.wait_for(reader.readuntil(b'"from"'), 60)
        except (TimeoutError, asyncio.IncompleteReadError):
            return False
        return True

    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for first in range(0, count, 50):
        streams += await asyncio.gather(*(begin() for _ in range(min(50, count - first))))
    added = megabytes(server.itself) - before
    with RunFolder.create("news", runs) as run:
        run.set_state("finished")
    heard = await asyncio.gather(*(hears(reader) for reader, _ in streams))
    for _, writer in streams:
        writer.close()
    return {
        "streams": count,
        "added_mb": added,
        "server_mb": before + added,
        "deaf": heard.count(False),
    }


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pages", type=float, default=40, help="a second")
    parser.add_argument("--submissions", type=float, default=5, help="a second")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--flat-out", type=float, default=10, help="seconds")
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
        start, cookies = first_paint(server, browser)
        bytes_sent = sent_bytes(server, browser, cookies)
        browser.close()
        cookie = "; ".join(f"{one['name']}={one['value']}" for one in cookies)
        with httpx.Client(base_url=server.base, headers={"Cookie": cookie}) as client:
            for room in ROOMS:
                client.get(room).raise_for_status()
        idle = megabytes(server.itself)
        # Playwright's own loop occupies this thread.
        results: list[Any] = []

        def measure() -> None:
            results.append(asyncio.run(load(server, cookie, args)))
            results.append(asyncio.run(hold_streams(server, cookie, args.streams, folder / "runs")))

        thread = threading.Thread(target=measure)
        thread.start()
        thread.join()
        pages, streams = results
    report = {"start_seconds": start, "bytes": bytes_sent, "idle_mb": idle}
    report |= {"pages": pages, "streams": streams}
    for name, value in start.items():
        print(f"{name:>20}  {value:.2f} s")
    for path, count in bytes_sent.items():
        print(f"{path:>30}  {count / 1000:.0f} kB")
    print(f"{'idle memory':>20}  {idle:.0f} MB")
    print(
        f"{'pages':>20}  {pages['pages']} at {pages['pages_per_second']:.0f}/s: median "
        f"{pages['median_ms']:.0f} ms, p95 {pages['p95_ms']:.0f} ms, maximum "
        f"{pages['maximum_ms']:.0f} ms"
    )
    print(f"{'submissions':>20}  {pages['submissions']}, {pages['unjudged']} without a verdict")
    print(f"{'lost':>20}  {len(pages['lost'])} {', '.join(sorted(set(pages['lost'])))}")
    memory = pages["memory_mb"]
    print(
        f"{'memory under load':>20}  {memory['first_quarter']:.0f} MB after a quarter, "
        f"{memory['end']:.0f} MB at the end, {memory['most']:.0f} MB at most"
    )
    print(f"{'flat out':>20}  {pages['flat_out_pages_per_second']:.0f} pages/s")
    print(
        f"{'streams':>20}  {streams['streams']} idle ones add {streams['added_mb']:.0f} MB; "
        f"{streams['deaf']} of them hear nothing"
    )
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
