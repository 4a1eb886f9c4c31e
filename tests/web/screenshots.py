"""Pictures of every room: light and dark, on a desktop and on a phone.

    python -m tests.web.screenshots FOLDER [--docs]

The rooms are those of somebody who has used them for weeks: problems solved and failed, runs, a
draft, papers that were liked. `--docs` writes the few pictures that the documentation shows into
docs/images instead of all of them. SmolLM2-135M has to be pulled, as its tokenizer is on one.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.app.test_today import solve
from tests.conftest import REPOSITORY
from tests.web.conftest import KEY, LAUNCH_KEY
from tests.web.every_page import named, settle
from tests.web.rooms.papers_data import sighting

from etude.app import drafts
from etude.app.papers.collecting import follow_up
from etude.app.workbench import Workbench, open_workbench
from etude.core.paths import home
from etude.practice.problem import find_problem, load_shelf
from etude.tuning.config.recipe import Recipe
from etude.tuning.runs.folder import RunFolder
from etude.web.app import create_app
from etude.web.server import listen, make_server
from etude.web.session import Sessions, launch_token

SLUG = "create-tensordataset"
SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
PAGES = {
    "today": "/",
    "practise": "/practise",
    "problem": f"/practise/{SLUG}",
    "solution": f"/practise/{SLUG}/solution",
    "papers": "/papers",
    "paper": "/papers/paper/2604.00002",
    "search": "/papers/search?q=adapters",
    "lab": "/lab",
    "mask": "/lab/new/{draft}",
    "run": "/lab/runs/functions-1",
    "compare": "/lab/compare?run=functions-1&run=functions-2",
    "models": "/models",
    "progress": "/progress",
    "settings": "/settings",
}
DOCS = {
    "today": ("today", "light", "desktop"),
    "problem": ("problem", "light", "desktop"),
    "papers": ("papers", "light", "desktop"),
    "mask": ("mask", "light", "desktop"),
    "run": ("run", "dark", "desktop"),
    "progress-phone": ("progress", "dark", "phone"),
}
"""File, page, colours and size."""

SUBJECTS = (
    "Rank one is enough: adapters for small language models",
    "What a loss mask hides from instruction tuning",
    "Detecting small objects from a moving camera",
    "Four bits and a curve: quantised weights under a long schedule",
    "A benchmark of benchmarks for code models",
    "Graph networks that say when they do not know",
    "Diffusion in eight steps, without a teacher",
    "Packing sequences without mixing what they mean",
)


@contextmanager
def rooms(folder: Path) -> Iterator[Workbench]:
    """Open rooms that were used for weeks."""
    (folder / "home").mkdir()
    for shared in ("models", "native"):
        (folder / "home" / shared).symlink_to(home() / shared, target_is_directory=True)
    os.environ.update(ETUDE_HOME=str(folder / "home"), ETUDE_DATABASE="", ETUDE_USER="ada")
    os.environ["ETUDE_ARXIV"] = "http://127.0.0.1:9"
    bench = open_workbench(runs=Path("runs"))
    _practise(bench)
    _read(bench)
    _train(bench.runs)
    with named(bench.runs, "reviews-1") as run:
        _steps(run, 130, 400, 0.9, seed=3)
        run.set_state("running")
        yield bench
    bench.close()


def _practise(bench: Workbench) -> None:
    drawn = random.Random(1)
    now = bench.progress.clock()
    shelf = [problem for problem in load_shelf() if problem.slug != SLUG]
    for number, problem in enumerate(shelf[:24]):
        day = now - 86400 * (40 - 1.6 * number) - 3600 * drawn.random()
        if drawn.random() < 0.4:
            solve(bench, problem, accepted=False, at=day - 600)
        solve(bench, problem, at=day)
    solve(bench, find_problem(SLUG), accepted=False, at=now - 900)
    bench.progress.ask_for_solution(SLUG)


def _read(bench: Workbench) -> None:
    for back in (2, 1):
        day = datetime.now(UTC).date() - timedelta(days=back)
        papers = [_paper(number + 20 * back, day) for number in range(len(SUBJECTS))]
        bench.library.put(papers)
    follow_up(bench.library)
    for key in ("2604.00020", "2604.00023", "2604.00027"):
        bench.reader.like(key)
    bench.reader.follow("Ada Lovelace")
    last = bench.library.last_day()
    assert last is not None
    bench.ranking.ask("day", 60.0, day=last, shelf=None, replaced=False)


def _paper(number: int, day: date) -> Any:
    title = SUBJECTS[number % len(SUBJECTS)]
    claims = (
        "On two processor cores, our method loses half a point of accuracy and takes a third of "
        "the memory. ",
        "We find that most of what is gained comes from the first thousand examples. ",
        "A simple baseline, tuned with as much care, is within one point of the best method. ",
    )
    abstract = claims[number % len(claims)] + "Code and figures are public."
    key = 2 if number == 42 else number
    return sighting(key, day, title=title, abstract=abstract)


def _train(runs: Path) -> None:
    for seed, (name, left) in enumerate(
        (("functions-1", 1.0), ("functions-2", 1.15), ("slots-1", 0.7))
    ):
        with named(runs, name) as run:
            _steps(run, 300, 300, left, seed=seed)
            samples = [
                {
                    "origin": f"rows.jsonl:{number}",
                    "prompt": f"def {word}(path):\n    return open(path).read()",
                    "reference": f"Return the {word} of a file.",
                    "before": "This function opens the path.",
                    "after": f"Return the {word} of a file." if number % 3 else "Read a file.",
                }
                for number, word in enumerate(("content", "lines", "header", "checksum"))
            ]
            run.write_lines("samples.jsonl", samples)
            summary = {"model": "smollm2-135m", "task": "chat", "method": "qlora"}
            run.write_json("summary.json", {**summary, "train_seconds": 540.0, "eval_loss": left})
            run.report.write_text("<!doctype html><title>Report</title>", "utf-8")
            run.adapter.mkdir()
            (run.adapter / "adapter_config.json").write_text("{}", "utf-8")
            run.log.write_text("Read 4,812 rows, held out 240.\nTrained for 300 steps.\n", "utf-8")
            run.set_state("finished")
    with named(runs, "summaries-1") as run:
        _steps(run, 40, 300, 1.3, seed=9)
        run.set_state("failed", "the disk is full; free some space, then resume the run")


def _steps(run: RunFolder, count: int, total: int, left: float, *, seed: int) -> None:
    drawn = random.Random(seed)
    run.write_text("recipe.yaml", Recipe.parse({"data": {"train": "rows.jsonl"}}).to_yaml())
    for step in range(1, count + 1):
        record = {
            "step": step,
            "total_steps": total,
            "loss": left + 1.8 * math.exp(-step / 60) + 0.08 * drawn.gauss(0, 1),
            "lr": 2e-4 * min(1, step / 20) * (1 - step / total),
            "grad_norm": 0.4 + 0.5 * math.exp(-step / 40) + 0.05 * abs(drawn.gauss(0, 1)),
            "tokens_per_s": 1030 + 20 * drawn.gauss(0, 1),
            "seconds": 1.8 * step,
        }
        run.append_metrics(record)
        if step % 50 == 0:
            loss = left + 0.1 + 1.8 * math.exp(-step / 60)
            run.append_metrics({"step": step, "eval_loss": loss})


def _draft(folder: Path, runs: Path) -> str:
    """Make a draft of a few questions, and look at it; return its id."""
    file = folder / "questions.csv"
    answers = ("It halves the memory.", "Rank 8 is enough here.", "Only the answer is trained.")
    rows = [f"What does change {n} do?;{answers[n % 3]}" for n in range(60)]
    file.write_text("\n".join(["question;answer", *rows]), "utf-8")
    draft, place = drafts.begin_upload(file.name)
    shutil.copy(file, place)
    drafts.make_draft(draft, str(place), task="chat", model="smollm2-135m", method="qlora")
    draft._look(draft._mark(), draft.yaml, runs)
    return draft.id


@contextmanager
def served(bench: Workbench) -> Iterator[str]:
    """Serve the rooms; yields a link that lets a browser in."""
    listener = listen("127.0.0.1", 18900)
    port = listener.getsockname()[1]
    app = create_app(bench, Sessions(KEY, LAUNCH_KEY), port=port)
    server = make_server(app)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}/open?token={launch_token(LAUNCH_KEY)}"
    app.inner.state.hub.close()
    server.should_exit = True
    thread.join(30)


def take(browser: Any, link: str, wanted: dict[Path, tuple[str, str, str]], *, whole: bool) -> None:
    """Take pictures.

    Args:
        browser: of Playwright.
        link: lets a browser in.
        wanted: by file, the page's path, the colours (light, dark) and the size.
        whole: the whole page, not what is seen at first.
    """
    base = link.partition("/open")[0]
    context = browser.new_context()
    page = context.new_page()
    page.goto(link)
    for file, (path, colours, size) in wanted.items():
        width, height = SIZES[size]
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=colours, reduced_motion="reduce")
        page.goto(base + path)
        settle(page)
        page.screenshot(path=file, full_page=whole)
        print(f"{file}  {file.stat().st_size / 1000:.0f} kB")
    context.close()


def main() -> None:
    """Take all pictures, or those of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="that the pictures are written into")
    parser.add_argument(
        "--docs", action="store_true", help="those that docs/ shows, into docs/images"
    )
    args = parser.parse_args()
    target: Path | None = REPOSITORY / "docs" / "images" if args.docs else args.folder
    if target is None:
        sys.exit("name a folder, or --docs")
    target = target.absolute()
    target.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        with rooms(folder) as bench:
            paths = {**PAGES, "mask": f"/lab/new/{_draft(folder, bench.runs)}"}
            if args.docs:
                wanted = {
                    target / f"{file}.png": (paths[page], colours, size)
                    for file, (page, colours, size) in DOCS.items()
                }
            else:
                wanted = {
                    target / f"{page}-{colours}-{size}.png": (path, colours, size)
                    for page, path in paths.items()
                    for colours in ("light", "dark")
                    for size in SIZES
                }
            with served(bench) as link, sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
                    args=["--no-sandbox", "--disable-gpu"],
                )
                take(browser, link, wanted, whole=not args.docs)
                browser.close()


if __name__ == "__main__":
    main()
