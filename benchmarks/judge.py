"""How long does a verdict take, and how many are there a second?

Through the durable queue, as a learner meets it: submission taken, judged in full isolation,
verdict written, verdict read. Beside it a fresh interpreter a submission, as other
judges start, in the same run and turn by turn.

    python benchmarks/judge.py --json judge.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from etude.practice.judge.grade import Judge, make_cases
from etude.practice.judge.pool import Pool
from etude.practice.judge.verdict import Verdict
from etude.practice.problem import find_problem
from etude.practice.queue import Queue, Ticket
from etude.practice.worker import Workers
from etude.store.engine import open_store

TRAIN = """
import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
for _ in range(50):
    loss = nn.functional.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50_ms": 1000 * statistics.median(ordered),
        "p95_ms": 1000 * ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)],
        "count": len(ordered),
    }


def one_by_one(
    queue: Queue, workers: Workers, slug: str, source: str, count: int
) -> dict[str, float]:
    """Time each submission from its start to its verdict, nothing else waiting."""
    times: list[float] = []
    for index in range(count + 3):
        begun = time.perf_counter()
        key = queue.add("bench", slug, source)
        workers.wake()
        while (status := queue.status(key)).verdict is None:
            time.sleep(0.001)
        assert status.verdict.accepted, status.verdict
        if index >= 3:
            times.append(time.perf_counter() - begun)
    return percentiles(times)


def burst(queue: Queue, workers: Workers, judged: list[str], slug: str, source: str, count: int):
    """Submit `count` at once; return the rate, and the wait of every tenth."""
    keys = [queue.add("bench", slug, source) for _ in range(count)]
    judged.clear()
    begun = time.perf_counter()
    workers.wake()
    while queue.waiting():
        time.sleep(0.02)
    seconds = time.perf_counter() - begun
    states = [queue.status(key) for key in keys]
    history = {row["key"]: row for row in queue.history("bench", most=10**6)}
    start = min(history[key]["finished"] for key in keys)
    out_of_place = max(abs(keys.index(key) - place) for place, key in enumerate(judged))
    return {
        "count": count,
        "per_second": count / seconds,
        "lost": sum(status.verdict is None for status in states),
        "judged_twice": len(judged) - len(set(judged)),
        "largest_change_of_place": out_of_place,
        "finished_after_s": [
            round(history[key]["finished"] - start, 2) for key in keys[:: max(1, count // 20)]
        ],
    }


def fresh_interpreters(source: str, calls: str, count: int) -> float:
    """Return submissions a second where each starts Python and imports torch, two at a time."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
        file.write(source + calls)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    for _ in range(count):
        if len(running) == 2:
            running.pop(0).wait()
        running.append(subprocess.Popen([sys.executable, file.name], env=environment))
    codes = [process.wait() for process in running]
    Path(file.name).unlink()
    assert not any(codes)
    return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="submissions one by one (100)")
    parser.add_argument("--burst", type=int, default=2000, help="submissions at once (2000)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    options = parser.parse_args()
    problem = find_problem("create-tensordataset")
    trained = problem.solution + TRAIN
    calls = "\nfor n in range(2, 16):\n    create_dataset(torch.randn(n, 4), torch.zeros(n))\n"
    judged: list[str] = []

    def note(ticket: Ticket, _: Verdict) -> None:
        judged.append(ticket.key)

    with tempfile.TemporaryDirectory() as folder:
        engine = open_store(f"sqlite:///{folder}/bench.sqlite3")
        queue = Queue(engine)
        with (
            Pool(options.workers) as pool,
            Workers(engine, Judge(pool), find_problem, note) as workers,
        ):
            figures = {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "python": platform.python_version(),
                "isolation": pool.level.describe(),
                "start_s": pool.warm_seconds,
                "tests": len(make_cases(problem, 1)),
                "tensor_dataset": one_by_one(
                    queue, workers, problem.slug, problem.solution, options.count
                ),
                "fifty_sgd_steps": one_by_one(queue, workers, problem.slug, trained, options.count),
                "burst": burst(
                    queue, workers, judged, problem.slug, problem.solution, options.burst
                ),
            }
            ratios = []
            for _ in range(3):
                ours = burst(queue, workers, judged, problem.slug, problem.solution, 200)[
                    "per_second"
                ]
                ratios.append((ours, fresh_interpreters(problem.solution, calls, 8)))
        engine.dispose()
    figures["per_second"], figures["fresh_per_second"] = (
        statistics.median(side) for side in zip(*ratios, strict=True)
    )
    figures["times_fresh"] = statistics.median(ours / fresh for ours, fresh in ratios)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
