"""`etude practice`: problems to solve, judged here."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli import app
from etude.errors import ProblemError

if TYPE_CHECKING:
    from etude.practice.explanations import Explanations
    from etude.practice.judge.pool import Pool
    from etude.practice.judge.verdict import Verdict
    from etude.practice.problem import Problem
    from etude.practice.progress import Progress
    from etude.practice.queue import Status
    from etude.practice.worker import Bench

practice = typer.Typer(
    name="practice",
    help="Coding problems in PyTorch, LLMs, machine learning and vision, judged in a sandbox.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(practice)


@practice.callback()
def _need_database() -> None:
    """Say what to install where only the engine was."""
    from importlib.util import find_spec

    if find_spec("sqlalchemy") is None or find_spec("alembic") is None:
        raise ProblemError("practising needs a database library: pip install 'etude[app]'")


def _slugs(incomplete: str) -> list[str]:
    from etude.practice.problem import shelf_folder

    return sorted(file.parent.name for file in shelf_folder().glob(f"*/{incomplete}*/problem.md"))


Slug = Annotated[
    str,
    typer.Argument(help="A problem's name, from `etude practice list`.", autocompletion=_slugs),
]
Names = Annotated[
    list[str] | None, typer.Argument(help="Problems; all without.", autocompletion=_slugs)
]
Shelf = Annotated[
    Path | None, typer.Option(help="Another folder of problems.", file_okay=False, exists=True)
]
NewShelf = Annotated[Path, typer.Option("--shelf", help="The folder of problems.")]
Answer = Annotated[Path | None, typer.Argument(help="Your file; SLUG.py without.", dir_okay=False)]
Demand = Annotated[
    list[str] | None,
    typer.Option("--demand", help="Refuse to judge without this layer; can be repeated."),
]
OWN_SHELF = Path("content/problems")


def _read(slug: str, file: Path | None) -> str:
    path = file or Path(f"{slug}.py")
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        hint = f"; `etude practice start {slug}` makes it" if file is None else ""
        raise ProblemError(f"{path} cannot be read: {error.strerror}{hint}") from error


def _markdown(text: str) -> None:
    """Show Markdown on a terminal, and leave it as it is in a pipe."""
    import sys

    if not sys.stdout.isatty():
        typer.echo(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


def _progress() -> Progress:
    from etude.practice.progress import Progress
    from etude.practice.session import learner_name, local_timezone
    from etude.store.engine import open_store

    progress = Progress(open_store(), learner_name())
    progress.set_timezone(local_timezone())
    return progress


def _pool(demand: list[str] | None, slots: int = 1) -> Pool:
    from etude.practice.judge.pool import Pool

    return Pool(slots, demand) if demand else Pool(slots)


@contextmanager
def _working(what: str) -> Generator[Callable[[str], None]]:
    """Show that something goes on, beside the output."""
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …") as status:
        yield lambda text: status.update(f"{text} …")


@practice.command("list")
def list_problems(
    collection: Annotated[str | None, typer.Option(help="One collection only.")] = None,
    difficulty: Annotated[str | None, typer.Option(help="easy, medium or hard.")] = None,
    shelf: Shelf = None,
) -> None:
    """Show the problems, and which you have solved.

    Example: `etude practice list --collection llm --difficulty easy`
    """
    from rich.console import Console
    from rich.table import Table

    from etude.practice.problem import COLLECTIONS, DIFFICULTIES, load_shelf

    for given, known, what in (
        (collection, COLLECTIONS, "collection"),
        (difficulty, DIFFICULTIES, "difficulty"),
    ):
        if given is not None and given not in known:
            raise ProblemError(f"there is no {what} {given!r}; there are {', '.join(known)}")
    solved = _progress().solved()
    table = Table(box=None, pad_edge=False)
    for name in ("", "problem", "title", "difficulty", "collection"):
        table.add_column(name)
    shown = [
        problem
        for problem in load_shelf(shelf)
        if collection in (None, problem.collection)
        and difficulty in (None, problem.front.difficulty)
    ]
    for problem in shown:
        mark = "✓" if problem.slug in solved else ""
        difficulty_ = problem.front.difficulty
        table.add_row(mark, problem.slug, problem.title, difficulty_, problem.collection)
    Console().print(table)
    done = sum(problem.slug in solved for problem in shown)
    typer.echo(f"{len(shown)} problems, {done} solved")


@practice.command("start")
def start_problem(slug: Slug, file: Answer = None, shelf: Shelf = None) -> None:
    """Show a problem and write its starter to SLUG.py.

    Example: `etude practice start create-tensordataset`
    """
    from etude.practice.problem import find_problem

    problem = find_problem(slug, shelf)
    kind = f"*{problem.front.difficulty}, {problem.collection}*"
    _markdown(f"# {problem.title}\n\n{kind}\n\n{problem.statement}")
    path = file or Path(f"{slug}.py")
    _progress().open(slug)
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(problem.starter)
    except FileExistsError:
        typer.echo(f"\n{path} is there already and stays as it is; now `etude practice run {slug}`")
        return
    except OSError as error:
        raise ProblemError(f"{path} cannot be written: {error.strerror}") from error
    typer.echo(f"\nwrote {path}; then `etude practice run {slug}`, `etude practice submit {slug}`")


@practice.command("run")
def run_visible(
    slug: Slug, file: Answer = None, shelf: Shelf = None, demand: Demand = None
) -> None:
    """Run the visible tests only; nothing is recorded.

    Example: `etude practice run create-tensordataset`
    """
    from etude.practice.judge.grade import Judge
    from etude.practice.problem import find_problem

    problem = find_problem(slug, shelf)
    source = _read(slug, file)
    with _working("starting the judge"), _pool(demand) as pool:
        verdict = Judge(pool).judge(problem, source, visible_only=True)
    _show(problem, source, verdict)
    if not verdict.accepted:
        raise typer.Exit(1)


@practice.command("submit")
def submit_answer(
    slug: Slug, file: Answer = None, shelf: Shelf = None, demand: Demand = None
) -> None:
    """Have your answer judged by all tests.

    Example: `etude practice submit create-tensordataset`
    """
    from etude.practice.problem import find_problem
    from etude.practice.session import learner_name, submit
    from etude.store.engine import open_store

    problem = find_problem(slug, shelf)
    source = _read(slug, file)
    with _working("waiting for the judge") as say:

        def show(status: Status) -> None:
            say(f"{status.position} before yours" if status.position else status.state)

        layers = tuple(demand) if demand else None
        key, verdict = submit(open_store(), problem, source, learner_name(), show, layers)
    _show(problem, source, verdict)
    typer.echo(typer.style(f"submission {key}", dim=True))
    if not verdict.accepted:
        raise typer.Exit(1)


def _show(problem: Problem, source: str, verdict: Verdict) -> None:
    """Print a verdict: one line first, then what helps."""
    from etude.practice.diagnose import diagnose

    sign, color = ("✓", "green") if verdict.accepted else ("✗", "red")
    mark = typer.style(sign, fg=color, bold=True)
    tests = f"{verdict.passed}/{verdict.total} tests"
    typer.echo(f"{mark} {verdict.name} · {tests} · {verdict.seconds * 1000:.0f} ms")
    if verdict.printed:
        typer.echo(f"--- printed in visible tests\n{verdict.printed.rstrip()}\n---")
    if not verdict.accepted:
        _markdown(diagnose(problem, source, verdict).text())
        typer.echo(f"\nhints: `etude practice hint {problem.slug}`")
    typer.echo(typer.style(f"seed {verdict.seed} · isolation: {verdict.isolation}", dim=True))


@practice.command("hint")
def show_hint(slug: Slug, shelf: Shelf = None) -> None:
    """Show the next hint.

    Example: `etude practice hint create-tensordataset`
    """
    from etude.practice.problem import find_problem

    problem, progress = find_problem(slug, shelf), _progress()
    hints = problem.hints
    level = min(progress.hints_taken(slug) + 1, len(hints))
    progress.take_hint(slug, level)
    for number, hint in enumerate(hints[:level], 1):
        _markdown(f"**Hint {number} of {len(hints)}.** {hint}\n")


@practice.command("explain")
def explain_problem(
    slug: Slug,
    file: Answer = None,
    ask: Annotated[
        list[str] | None, typer.Option(help="A question for the model, where one is set.")
    ] = None,
    solution: Annotated[
        bool, typer.Option("--solution", help="Show the lesson and the solution.")
    ] = False,
    shelf: Shelf = None,
) -> None:
    """Explain why your answer fails; with --solution, or once it is solved, the lesson.

    A language model explains too where ETUDE_LLM_URL and ETUDE_LLM_MODEL name one, such as
    http://localhost:11434/v1 and qwen3:8b.

    Example: `etude practice explain create-tensordataset`
    """
    from etude.practice.problem import find_problem

    problem, progress = find_problem(slug, shelf), _progress()
    if solution or slug in progress.solved():
        code = f"```python\n{problem.solution}```"
        _markdown(f"# {problem.title}\n\n{problem.explanation}\n\n{code}")
        return
    _explain_failure(problem, _read(slug, file), ask or [])


def _explain_failure(problem: Problem, source: str, ask: list[str]) -> None:
    from etude.practice import tutor
    from etude.practice.diagnose import diagnose
    from etude.practice.judge.grade import Judge

    with _working("judging"), _pool(None) as pool:
        verdict = Judge(pool).judge(problem, source)
    if verdict.accepted:
        typer.echo(f"all tests pass: `etude practice submit {problem.slug}` opens the lesson")
        return
    diagnosis = diagnose(problem, source, verdict)
    _markdown(diagnosis.text())
    settings = tutor.Settings.from_environment()
    if settings is None:
        typer.echo("\nA model can explain it too: set ETUDE_LLM_URL and ETUDE_LLM_MODEL.")
        return
    typer.echo(f"\n{settings.model} says:")
    shown, explanation = 0, tutor.Explanation(settings.model)
    for explanation in tutor.explain(settings, problem, source, verdict, diagnosis, ask):
        typer.echo(explanation.text[shown:], nl=False)
        shown = max(shown, len(explanation.text))
        if explanation.withheld:
            typer.echo(f"\n(no more of it is shown: {explanation.withheld})", nl=False)
    typer.echo()
    _explanations().keep(problem.slug, explanation)
    if explanation.text:
        typer.echo("did it help? `etude practice rate yes` or `etude practice rate no`")


def _explanations() -> Explanations:
    from etude.practice.explanations import Explanations
    from etude.practice.session import learner_name
    from etude.store.engine import open_store

    return Explanations(open_store(), learner_name())


class Helped(StrEnum):
    """Whether an explanation helped."""

    YES = "yes"
    NO = "no"


@practice.command("rate")
def rate_explanation(
    helped: Annotated[Helped, typer.Argument(help="Whether it helped: yes or no.")],
    number: Annotated[
        int | None, typer.Option(help="Another explanation than the last one.")
    ] = None,
) -> None:
    """Say whether a model's explanation helped you; `stats` shows the sums.

    Example: `etude practice rate yes`
    """
    which, slug, model = _explanations().rate(helped is Helped.YES, number)
    typer.echo(f"explanation {which}, of {slug} by {model}: {helped.value}")


@practice.command("daily")
def show_daily(shelf: Shelf = None) -> None:
    """Show today's problem.

    Example: `etude practice daily`
    """
    from etude.practice.daily import problem_of_the_day
    from etude.practice.problem import load_shelf

    progress = _progress()
    choice = problem_of_the_day(progress.engine, progress, load_shelf(shelf))
    done = "solved" if choice.problem.slug in progress.solved() else choice.why
    typer.echo(f"{choice.day}: {choice.problem.title} ({choice.problem.front.difficulty}, {done})")
    typer.echo(f"`etude practice start {choice.problem.slug}`")


@practice.command("stats")
def show_stats() -> None:
    """Show what you have solved, your streak, and concepts to meet again.

    Example: `etude practice stats`
    """
    progress = _progress()
    stats, today = progress.stats(), progress.today()
    typer.echo(f"solved {stats.solved} of {stats.tried} tried, {stats.submissions} submissions")
    typer.echo(f"streak {stats.streak} days, longest {stats.longest}")
    days = [today - timedelta(days=back) for back in range(27, -1, -1)]
    weeks = "".join("▁▃▅▇█"[min(stats.by_day.get(day, 0), 4)] for day in days)
    typer.echo(f"last four weeks {weeks}")
    for concept in stats.concepts[:12]:
        due = "due now" if concept.due <= today else f"due {concept.due}"
        full = round(concept.mastery * 5)
        counts = f"{concept.right} right, {concept.wrong} wrong"
        typer.echo(f"{'█' * full}{'░' * (5 - full)} {concept.name} · {counts} · {due}")
    for record in _explanations().by_model():
        rated = f"{record.helped} helped, {record.did_not} did not"
        typer.echo(f"{record.model} explained {record.said} times: {rated}")


@practice.command("judge")
def run_judge(
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Submissions judged at once; with --ray on each.")
    ] = 2,
    ray: Annotated[
        str | None,
        typer.Option(help="Judge on a Ray cluster: auto, host:port, ray://… or local."),
    ] = None,
    judges: Annotated[
        int, typer.Option(min=1, max=1000, help="With --ray: judges, spread over the machines.")
    ] = 1,
    demand: Demand = None,
    shelf: Shelf = None,
) -> None:
    """Judge what is submitted, until Ctrl-C; verdicts then come in milliseconds.

    Example: `etude practice judge --workers 2 --demand namespaces`

    On several machines, after `ray start --head` on one and `ray start --address=…` on the others:
    `etude practice judge --ray auto --judges 8`
    """
    from etude.practice.problem import find_problem
    from etude.practice.session import recorder
    from etude.practice.worker import Workers
    from etude.store.engine import open_store

    def find(slug: str) -> Problem:
        return find_problem(slug, shelf)

    engine = open_store()
    stop = False

    def leave(*_: object) -> None:
        nonlocal stop
        stop = True

    with _bench(demand, workers, ray, judges) as (bench, described):
        # After Ray has started, which sets handlers of its own.
        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        typer.echo(f"isolation: {described}")
        with Workers(engine, bench, find, recorder(engine, find)):
            typer.echo(
                f"judging, {bench.slots} at a time; Ctrl-C finishes what is begun and leaves"
            )
            while not stop:
                time.sleep(0.2)


@contextmanager
def _bench(
    demand: list[str] | None, workers: int, ray: str | None, judges: int
) -> Generator[tuple[Bench, str]]:
    """Start what judges, here or on a cluster, and say with which isolation."""
    if ray is not None:
        from etude.practice.cluster import RayJudges

        layers = {"demand": demand} if demand else {}
        with RayJudges(ray, judges, workers, **layers) as cluster:
            yield cluster, cluster.describe()
        return
    from etude.practice.judge.grade import Judge

    with _pool(demand, workers) as pool:
        yield Judge(pool), pool.level.describe()


@practice.command("new")
def new_problem_folder(
    collection: Annotated[str, typer.Argument(help="pytorch, llm, ...")],
    slug: Annotated[str, typer.Argument(help="Lower-case words joined by hyphens.")],
    title: Annotated[str | None, typer.Option(help="The title; from the slug without.")] = None,
    shelf: NewShelf = OWN_SHELF,
) -> None:
    """Make the folder of a new problem, with every file in its place.

    Example: `etude practice new llm my-problem`
    """
    from etude.practice.scaffold import new_problem

    folder = new_problem(shelf, collection, slug, title)
    typer.echo(f"made {folder}; then `etude practice lint {slug} --shelf {shelf}`")


@practice.command("export")
def export_zip(
    file: Annotated[Path, typer.Argument(help="The zip to write.")],
    names: Names = None,
    shelf: Shelf = None,
) -> None:
    """Write problems to a zip.

    Example: `etude practice export problems.zip create-tensordataset`
    """
    from etude.practice.bundle import export_problems
    from etude.practice.problem import find_problem, load_shelf

    problems = [find_problem(name, shelf) for name in names] if names else load_shelf(shelf)
    try:
        count = export_problems(problems, file)
    except OSError as error:
        raise ProblemError(f"{file} cannot be written: {error.strerror}") from error
    typer.echo(f"{len(problems)} problems, {count} files in {file}")


@practice.command("import")
def import_zip(
    file: Annotated[Path, typer.Argument(help="A zip that `export` wrote.", exists=True)],
    shelf: NewShelf = OWN_SHELF,
) -> None:
    """Unpack problems; read their tests.py before the first submission, the judge trusts it.

    Example: `etude practice import problems.zip --shelf my-problems`
    """
    from etude.practice.bundle import import_problems

    for problem in import_problems(file, shelf):
        typer.echo(f"{problem.collection}/{problem.slug}: {problem.title}")


@practice.command("lint")
def lint_problems(
    names: Names = None,
    shelf: Shelf = None,
    python: Annotated[
        Path | None,
        typer.Option(help="Run answers with another interpreter, which may have another NumPy."),
    ] = None,
) -> None:
    """Judge each problem's own right and wrong answers, and test its tests.

    Example: `etude practice lint create-tensordataset`
    """
    from rich.progress import track

    from etude.practice.judge.grade import Judge
    from etude.practice.judge.pool import Pool
    from etude.practice.lint import lint
    from etude.practice.problem import find_problem, load_shelf

    problems = [find_problem(name, shelf) for name in names] if names else load_shelf(shelf)
    found = 0
    with Pool(python=str(python) if python else None) as pool:
        judge = Judge(pool)
        for problem in track(problems, description="judging", transient=True):
            for finding in lint(problem, judge):
                typer.echo(str(finding))
                found += 1
    typer.echo(f"{len(problems)} problems, {found} findings")
    if found:
        raise typer.Exit(1)
