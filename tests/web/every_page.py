"""Every page that there is: the routes of the app, each with an address at which it answers.

A route without a parameter is its own address. Parameters are filled by what `furnished` has made:
runs in all states, a draft, papers, a problem that was solved and one that was failed. A new route
is asked for like all others; only a parameter of a new name has to be added to `parameters`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.app.test_today import solve
from tests.web.rooms.papers_data import installation

from etude.app import drafts
from etude.app.conversations import ChatSettings, Conversations
from etude.app.workbench import Workbench
from etude.core.paths import home
from etude.practice.problem import find_problem
from etude.tuning.config.recipe import Recipe
from etude.tuning.metrics.metric import loss_metric
from etude.tuning.runs.folder import RunFolder
from etude.tuning.search.page import write_search_report
from etude.tuning.search.record import SearchRecord, Selection
from etude.tuning.search.space import space_of
from etude.tuning.search.trial import Trial
from etude.web import assets, entrance, events
from etude.web.rooms import ROOMS

SLUG = "create-tensordataset"
LONG = "a-name-that-somebody-made-much-longer-than-any-column-is-wide-on-a-phone"

UNREAD = ("/events", "/open", "/static/{file}", "/feeds/{secret}/{path:path}")
"""The stream, which does not end, the way in, built files, and feeds with their secret address."""

ROUTERS = [assets.router, entrance.router, events.router]
ROUTERS += [router for room in ROOMS for router in room.routers]
PAGE_ROUTES = sorted(
    {
        route.path
        for router in ROUTERS
        for route in router.routes
        if "GET" in route.methods and route.path not in UNREAD
    }
)
"""Routes that are read."""

FURTHER = {
    "/": ["/no-such-page"],
    "/lab/compare": ["/lab/compare?run=shown-1&run=other-1"],
    "/lab/new/{draft}/search": ["{path}?trials=0&vary=train.lr&against=peak_rss"],
    "/lab/runs/{name}": [
        f"/lab/runs/{name}-1" for name in ("failed", "working", "damaged", "searched", LONG)
    ],
    "/papers": ["/papers?order=topics", "/papers?shelf=learning"],
    "/papers/search": ["/papers/search?q=yolo", "/papers/search?q=zzzz"],
    "/papers/tagged": ["/papers/tagged?tag=to%20read"],
    "/practise": ["/practise?q=zzzz", "/practise?state=solved"],
    "/practise/{slug}": ["/practise/rms-norm", "/practise/kv-cache"],
    "/practise/{slug}/solution": ["/practise/causal-mask/solution"],
    "/settings": ["/settings?saved=true"],
}
"""Other addresses of a route, at which its page looks different; `{path}` is the usual one's."""


@contextmanager
def furnished(folder: Path, model: str) -> Iterator[Workbench]:
    """Open a workbench in which every page has something to show.

    Args:
        folder: that is its own.
        model: path of a small model, for a draft whose data were looked at.
    """
    (folder / "home").mkdir()
    for shared in ("models", "native"):  # not pulled, and not built, once more
        (folder / "home" / shared).symlink_to(home() / shared, target_is_directory=True)
    with installation(folder) as bench:
        _practise(bench)
        _read(bench)
        _train(bench.runs)
        _prepare(folder, bench.runs, model)
        with named(bench.runs, "working-1") as run:
            _steps(run, 2)
            run.set_state("running")
            yield bench


def parameters(runs: Path) -> dict[str, str]:
    """Return a value for each parameter of a route, by the route's beginning and its name."""
    (draft,) = (home() / "lab").iterdir()
    (chat,) = Conversations(RunFolder(runs / "shown-1")).all()
    return {
        "/lab/runs/{name}/chat/{chat}": f"shown-1/chat/{chat.id}",
        "/practise/collections/{name}": "llm",
        "/practise/tracks/{name}": "lora",
        "/lab/runs/{name}": "shown-1",
        "/lab/new/{draft}": draft.name,
        "/practise/{slug}": SLUG,
        "/papers/paper/{key:path}": "2604.00080",
        "/papers/beside/{key:path}": "2604.00080",
    }


def addresses(route: str, runs: Path) -> list[str]:
    """Return the addresses of a route, the first of which is the usual one."""
    path = route
    for beginning, value in parameters(runs).items():
        if path.startswith(beginning):
            path = beginning.partition("{")[0] + value + path[len(beginning) :]
            break
    assert "{" not in path, f"{route}: give its parameter a value"
    return [path, *(one.replace("{path}", path) for one in FURTHER.get(route, []))]


def is_page(answer) -> bool:
    """Tell a page of the app from a download, plain data, and a report, which is shut off."""
    if "sandbox" in answer.headers.get("content-security-policy", ""):
        return False
    kind = answer.headers.get("content-type", "")
    return kind.startswith("text/html") and "content-disposition" not in answer.headers


def settle(page: Any) -> None:
    """Wait for what the scripts of a page ask for when it is opened."""
    if page.locator("etude-curves").count():
        page.locator("etude-curves[data-steps], .banner.wrong").first.wait_for()
    if page.locator("#beside").count():
        page.locator("#beside h2").first.wait_for()
        page.locator("#beside [hx-trigger]").first.wait_for(state="detached", timeout=120_000)


def named(runs: Path, name: str) -> RunFolder:
    """Make the folder of a run that has this name, whatever the time is."""
    (runs / name / "checkpoints").mkdir(parents=True)
    return RunFolder(runs / name)


def _practise(bench: Workbench) -> None:
    solve(bench, find_problem(SLUG))
    for slug in ("rms-norm", "pca-by-svd", "lora-forward"):
        solve(bench, find_problem(slug), accepted=slug != "rms-norm")
    bench.progress.ask_for_solution(SLUG)
    # Two tabs, one of which was late.
    saved, _ = bench.drafts.save("kv-cache", "first = 1\n", 0, "a" * 16)
    bench.drafts.save("kv-cache", "second = 2\n", saved.revision - 1, "b" * 16)


def _read(bench: Workbench) -> None:
    for number in (2, 6, 80):
        bench.reader.like(f"2604.{number:05}")
    bench.reader.dislike("2604.00003")
    bench.reader.tag("2604.00080", "to read")
    bench.reader.note("2604.00080", "a note " * 40)
    bench.reader.follow("Ada Lovelace")
    bench.reader.save_search("detectors", "yolo OR detector*")
    day = bench.library.last_day()
    assert day is not None
    for what in ("day", "topics"):
        bench.ranking.ask(what, 60.0, day=day, shelf=None, replaced=False)


def _train(runs: Path) -> None:
    for name in ("shown-1", "other-1"):
        with named(runs, name) as run:
            _steps(run, 30)
            sample = {"origin": "r:1", "prompt": "p", "reference": "a", "before": "b", "after": "a"}
            run.write_lines("samples.jsonl", [sample, {**sample, "origin": "r:2", "after": "c"}])
            run.write_json(
                "summary.json",
                {"model": "tiny", "task": "chat", "method": "qlora", "train_seconds": 61.0},
            )
            run.report.write_text("<!doctype html><title>Report</title>", "utf-8")
            run.adapter.mkdir()
            (run.adapter / "adapter_config.json").write_text("{}", "utf-8")
            run.log.write_text("a line of the log\n" * 200, "utf-8")
            (run.path / "exports" / "peft").mkdir(parents=True)
            (run.path / "exports" / "peft" / "adapter_config.json").write_text("{}", "utf-8")
            (run.path / "exports" / "adapter.gguf").write_bytes(b"GGUF")
            _converse(run)
            run.set_state("finished")
    for name in ("failed-1", f"{LONG}-1"):
        with named(runs, name) as run:
            _steps(run, 3)
            run.set_state("failed", "the disk is full: free some space, then resume the run")
    with named(runs, "searched-1") as run:
        _search(run)
    with named(runs, "damaged-1") as run:
        run.set_state("finished")
        (run.path / "summary.json").write_text("{ not JSON")


def _search(run: RunFolder) -> None:
    """Write what a search of four trials has found, of which one failed."""
    fields = {"name": "searched", "data": {"train": "rows.jsonl"}}
    rates = {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    space = space_of({**fields, "train": rates, "search": {"trials": 4}}, "the form")
    figures = {"trainable_parameters": 1000, "train_seconds": 3.0}
    trials = [
        Trial(n, {"train.lr": rate}, "finished", 0, {}, [loss], 0.1, figures, 4.0, f"trial-00{n}")
        for n, (rate, loss) in enumerate([(1e-3, 2.5), (3e-3, 2.25), (2e-4, 3.125)])
    ]
    trials.append(Trial(3, {"train.lr": 9e-3}, "failed", 0, reason="its process ended"))
    run.write_json("search.json", space.as_json())
    run.write_text("recipe.yaml", space.default.to_yaml())
    chosen = Selection(default=0, best=1, cheapest=1)
    SearchRecord(loss_metric("nats"), (), trials, chosen).write(run)
    write_search_report(run, space)
    run.set_state("stopped", "4 of 4 trials")


def _converse(run: RunFolder) -> None:
    """Keep a conversation of two questions, of which the first was voted on."""
    kept = Conversations(run)
    name = kept.begin(ChatSettings())
    for number in (1, 2):
        kept.ask(name, {"message": f"question {number}"}, ("base", "tuned"))
        for voice in ("base", "tuned"):
            kept.begin_answer(name, number, voice)
            text = f"an answer of the {voice} model " * 20
            kept.end_answer(name, number, voice, "ended", text=text, tokens=120, seconds=2.5)
    kept.vote(name, 1, "left")


def _steps(run: RunFolder, count: int) -> None:
    fields = {"name": run.name, "task": "chat", "data": {"train": "rows.jsonl"}}
    run.write_text("recipe.yaml", Recipe.parse(fields).to_yaml())
    for step in range(1, count + 1):
        figures = {"loss": 3 - step / 20, "lr": 1e-4, "grad_norm": 0.5, "tokens_per_s": 900.0}
        run.append_metrics({"step": step, "total_steps": 60, "seconds": 2.0 * step, **figures})
    run.append_metrics({"step": count, "eval_loss": 1.625})


def _prepare(folder: Path, runs: Path, model: str) -> None:
    """Make a draft whose rows, masks, memory and findings are known."""
    file = folder / "questions.csv"
    lines = ["question;answer", *(f"open {n};Close {n}." for n in range(40)), "open 1;Close 1."]
    file.write_text("\n".join(lines), "utf-8")
    draft, _ = drafts.begin_upload(file.name)
    drafts.make_draft(draft, str(file), task="chat", model=model, method="qlora")
    mark = draft._mark()
    draft._look(mark, draft.yaml, runs)
    seen = draft.seen()
    assert all(one.answer is not None for one in seen.values()), re.sub(r"\s+", " ", str(seen))
