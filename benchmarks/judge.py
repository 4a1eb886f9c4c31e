"""How long does a verdict take, and how many are there a second?

Through the durable queue, as a learner meets it: submission taken, judged in full isolation,
verdict written, verdict read. Beside it a fresh interpreter a submission, as other
judges start, in the same run and turn by turn.

    python benchmarks/judge.py --json judge.json --svg judge.svg

With `--attacks`, the hostile programs of tests/attacks are judged too, and after each of them an
honest submission: how long does whoever comes next wait?
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
from typing import Any

from etude.practice.judge.judge import Judge
from etude.practice.judge.pool import Pool
from etude.practice.judge.test_cases import make_cases
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
        verdict = _answer(queue, workers, slug, source)
        assert verdict.accepted, verdict
        if index >= 3:
            times.append(time.perf_counter() - begun)
    return percentiles(times)


def burst(queue: Queue, judge: Judge, slug: str, source: str, count: int) -> dict[str, Any]:
    """Submit `count`, then let the workers begin; return the rate, and the wait of every tenth.

    Nothing is judged before all have been taken, so the rate has no head start.
    """
    judged: list[str] = []

    def note(ticket: Ticket, verdict: Verdict) -> None:
        assert verdict.accepted, verdict
        judged.append(ticket.key)

    keys = [queue.add("bench", slug, source) for _ in range(count)]
    begun = time.perf_counter()
    with Workers(queue.engine, judge, find_problem, note):
        while queue.waiting():
            time.sleep(0.05)
        seconds = time.perf_counter() - begun
    states = [queue.status(key) for key in keys]
    history = {row["key"]: row for row in queue.history("bench", most=10**6)}
    start = min(history[key]["finished"] for key in keys)
    place_of = {key: place for place, key in enumerate(keys)}
    out_of_place = max(abs(place_of[key] - place) for place, key in enumerate(judged))
    return {
        "count": count,
        "per_second": count / seconds,
        "lost": sum(status.verdict is None for status in states),
        "judged_twice": len(judged) - len(set(judged)),
        "largest_change_of_place": out_of_place,
        "finished_after_s": [
            round(history[key]["finished"] - start, 2) for key in keys[:: max(1, count // 100)]
        ],
    }


def after_attacks(queue: Queue, workers: Workers, slug: str, source: str) -> dict[str, Any]:
    """Judge each hostile program, then at once an honest answer, whose time is what counts."""
    folder = Path(__file__).parents[1] / "tests" / "attacks"
    times: dict[str, float] = {}
    for file in sorted(folder.glob("*.py")):
        if file.name.startswith("test_"):
            continue
        hostile = file.read_text()
        if "def create_dataset" not in hostile:
            hostile += "\n\n" + source
        _answer(queue, workers, slug, hostile)
        begun = time.perf_counter()
        assert _answer(queue, workers, slug, source).accepted
        times[file.stem] = time.perf_counter() - begun
    slowest = max(times, key=lambda name: times[name])
    return {
        **percentiles(list(times.values())),
        "most_ms": 1000 * times[slowest],
        "slowest": slowest,
        "above_200_ms": sorted(name for name, seconds in times.items() if seconds > 0.2),
    }


def _answer(queue: Queue, workers: Workers, slug: str, source: str) -> Verdict:
    key = queue.add("bench", slug, source)
    workers.wake()
    while (status := queue.status(key)).verdict is None:
        time.sleep(0.001)
    return status.verdict


def plot(burst: dict[str, Any]) -> str:
    """Draw when each of a burst had its verdict, by its place in the queue."""
    waits, count = burst["finished_after_s"], burst["count"]
    left, right, top, bottom = 60, 620, 40, 300
    most = max(waits[-1], 1e-9)

    def at(place: float, seconds: float) -> str:
        x = left + (right - left) * place / count
        return f"{x:.1f},{bottom - (bottom - top) * seconds / most:.1f}"

    step = count / max(len(waits), 1)
    path = " ".join(at(index * step, seconds) for index, seconds in enumerate(waits))
    marks = [
        f'<text x="{left - 8}" y="{bottom - (bottom - top) * part + 4:.0f}" text-anchor="end">'
        f'{most * part:.0f}</text><line x1="{left}" x2="{right}" stroke="#ddd" '
        f'y1="{bottom - (bottom - top) * part:.0f}" y2="{bottom - (bottom - top) * part:.0f}"/>'
        for part in (0, 0.25, 0.5, 0.75, 1)
    ]
    places = [
        f'<text x="{left + (right - left) * part:.0f}" y="{bottom + 20}" text-anchor="middle">'
        f"{count * part:,.0f}</text>"
        for part in (0, 0.25, 0.5, 0.75, 1)
    ]
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 350" font-size="13" '
            'font-family="system-ui, sans-serif"><rect width="660" height="350" fill="#fff"/>',
            f'<text x="{left}" y="22">Seconds until a verdict, {count:,} submissions at once: '
            f"{burst['per_second']:.0f} a second</text>",
            *marks,
            *places,
            f'<text x="{(left + right) / 2:.0f}" y="{bottom + 42}" text-anchor="middle">place in '
            "the queue</text>",
            f'<polyline points="{path}" fill="none" stroke="#2a5d9f" stroke-width="2"/>',
            "</svg>\n",
        ]
    )


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
    parser.add_argument("--attacks", action="store_true", help="what waits after a hostile one")
    parser.add_argument("--svg", type=Path, help="draw the burst to a file")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    options = parser.parse_args()
    problem = find_problem("create-tensordataset")
    trained = problem.solution + TRAIN
    calls = "\nfor n in range(2, 16):\n    create_dataset(torch.randn(n, 4), torch.zeros(n))\n"
    with tempfile.TemporaryDirectory() as folder:
        engine = open_store(f"sqlite:///{folder}/bench.sqlite3")
        queue = Queue(engine)
        with Pool(options.workers) as pool:
            judge = Judge(pool)
            with Workers(engine, judge, find_problem) as workers:
                alone = {
                    "tensor_dataset": one_by_one(
                        queue, workers, problem.slug, problem.solution, options.count
                    ),
                    "fifty_sgd_steps": one_by_one(
                        queue, workers, problem.slug, trained, options.count
                    ),
                }
                if options.attacks:
                    alone["after_attacks"] = after_attacks(
                        queue, workers, problem.slug, problem.solution
                    )
            figures: dict[str, Any] = {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "python": platform.python_version(),
                "isolation": pool.level.describe(),
                "start_s": pool.warm_seconds,
                "tests": len(make_cases(problem, 1)),
                **alone,
                "burst": burst(queue, judge, problem.slug, problem.solution, options.burst),
            }
            ratios: list[tuple[float, float]] = []
            for _ in range(3):
                ours = burst(queue, judge, problem.slug, problem.solution, 200)["per_second"]
                ratios.append((ours, fresh_interpreters(problem.solution, calls, 8)))
        engine.dispose()
    figures["per_second"], figures["fresh_per_second"] = (
        statistics.median(side) for side in zip(*ratios, strict=True)
    )
    figures["times_fresh"] = statistics.median(ours / fresh for ours, fresh in ratios)
    told = {**figures, "burst": {**figures["burst"], "finished_after_s": "in the file"}}
    print(json.dumps(told, indent=2))
    if options.svg:
        options.svg.write_text(plot(figures["burst"]))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
