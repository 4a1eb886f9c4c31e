"""`etude practice list | start | run | submit | hint | explain | rate`: solve problems."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.practice import practice
from etude.cli.practice.context import (
    Answer,
    Require,
    Shelf,
    Slug,
    markdown,
    open_explanations,
    open_pool,
    open_progress,
    read_answer,
)
from etude.cli.spinner import working
from etude.core.errors import ProblemError

if TYPE_CHECKING:
    from etude.practice.judge.verdict import Verdict
    from etude.practice.problem import Problem
    from etude.practice.queue import QueueStatus


@practice.command(
    "list", epilog="Example:\n\n`etude practice list --collection llm --difficulty easy`"
)
def list_problems(
    collection: Annotated[str | None, typer.Option(help="List this collection only.")] = None,
    difficulty: Annotated[
        str | None, typer.Option(help="List this difficulty only: easy, medium or hard.")
    ] = None,
    shelf: Shelf = None,
) -> None:
    """List the problems and mark those that you have solved."""
    from rich.console import Console
    from rich.table import Table

    from etude.practice.problem import COLLECTIONS, DIFFICULTIES, load_shelf

    for given, known, what in (
        (collection, COLLECTIONS, "collection"),
        (difficulty, DIFFICULTIES, "difficulty"),
    ):
        if given is not None and given not in known:
            raise ProblemError(f"there is no {what} {given!r}; there are {', '.join(known)}")
    solved = open_progress().solved()
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


@practice.command("start", epilog="Example:\n\n`etude practice start create-tensordataset`")
def start_problem(slug: Slug, file: Answer = None, shelf: Shelf = None) -> None:
    """Show a problem and write its starter code to SLUG.py."""
    from etude.practice.problem import find_problem

    problem = find_problem(slug, shelf)
    kind = f"*{problem.front.difficulty}, {problem.collection}*"
    markdown(f"# {problem.title}\n\n{kind}\n\n{problem.statement}")
    path = file or Path(f"{slug}.py")
    open_progress().open(slug)
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(problem.starter)
    except FileExistsError:
        typer.echo(f"\n{path} is there already and stays as it is; now `etude practice run {slug}`")
        return
    except OSError as error:
        raise ProblemError(f"{path} cannot be written: {error.strerror}") from error
    typer.echo(f"\nwrote {path}; then `etude practice run {slug}`, `etude practice submit {slug}`")


@practice.command("run", epilog="Example:\n\n`etude practice run create-tensordataset`")
def run_visible(
    slug: Slug, file: Answer = None, shelf: Shelf = None, require: Require = None
) -> None:
    """Run the visible tests only, without recording the result."""
    from etude.practice.judge.judge import Judge
    from etude.practice.problem import find_problem

    problem = find_problem(slug, shelf)
    source = read_answer(slug, file)
    with working("starting the judge"), open_pool(require) as pool:
        verdict = Judge(pool).judge(problem, source, visible_only=True)
    _show(problem, source, verdict)
    if not verdict.accepted:
        raise typer.Exit(1)


@practice.command("submit", epilog="Example:\n\n`etude practice submit create-tensordataset`")
def submit_answer(
    slug: Slug, file: Answer = None, shelf: Shelf = None, require: Require = None
) -> None:
    """Submit your answer to all tests."""
    from etude.core.user import current_user
    from etude.practice.problem import find_problem
    from etude.practice.session import submit
    from etude.store.engine import open_store

    problem = find_problem(slug, shelf)
    source = read_answer(slug, file)
    with working("waiting for the judge") as say:

        def show(status: QueueStatus) -> None:
            say(f"{status.position} before yours" if status.position else status.state)

        layers = tuple(require) if require else None
        key, verdict = submit(open_store(), problem, source, current_user("practice"), show, layers)
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
        markdown(diagnose(problem, source, verdict).text())
        typer.echo(f"\nhints: `etude practice hint {problem.slug}`")
    typer.echo(typer.style(f"seed {verdict.seed} · isolation: {verdict.isolation}", dim=True))


@practice.command("hint", epilog="Example:\n\n`etude practice hint create-tensordataset`")
def show_hint(slug: Slug, shelf: Shelf = None) -> None:
    """Show the next hint."""
    from etude.practice.problem import find_problem

    problem, progress = find_problem(slug, shelf), open_progress()
    hints = problem.hints
    level = min(progress.hints_taken(slug) + 1, len(hints))
    progress.take_hint(slug, level)
    for number, hint in enumerate(hints[:level], 1):
        markdown(f"**Hint {number} of {len(hints)}.** {hint}\n")


@practice.command("explain", epilog="Example:\n\n`etude practice explain create-tensordataset`")
def explain_problem(
    slug: Slug,
    file: Answer = None,
    ask: Annotated[
        list[str] | None, typer.Option(help="A question for the language model. May be repeated.")
    ] = None,
    solution: Annotated[
        bool, typer.Option("--solution", help="Show the lesson and the solution.")
    ] = False,
    shelf: Shelf = None,
) -> None:
    """Explain why your answer fails; with --solution or once solved, show the lesson.

    A language model explains it, too, if ETUDE_LLM_URL and ETUDE_LLM_MODEL are set, for example to
    http://localhost:11434/v1 and qwen3:8b.
    """
    from etude.practice.problem import find_problem

    problem, progress = find_problem(slug, shelf), open_progress()
    if solution or slug in progress.solved():
        code = f"```python\n{problem.solution}```"
        markdown(f"# {problem.title}\n\n{problem.explanation}\n\n{code}")
        return
    _explain_failure(problem, read_answer(slug, file), ask or [])


def _explain_failure(problem: Problem, source: str, ask: list[str]) -> None:
    from etude.core.chat_client import ChatEndpoint
    from etude.practice import tutor
    from etude.practice.diagnose import diagnose
    from etude.practice.judge.judge import Judge

    with working("judging"), open_pool(None) as pool:
        verdict = Judge(pool).judge(problem, source)
    if verdict.accepted:
        typer.echo(f"all tests pass: `etude practice submit {problem.slug}` opens the lesson")
        return
    diagnosis = diagnose(problem, source, verdict)
    markdown(diagnosis.text())
    endpoint = ChatEndpoint.from_environment()
    if endpoint is None:
        typer.echo("\nA model can explain it too: set ETUDE_LLM_URL and ETUDE_LLM_MODEL.")
        return
    typer.echo(f"\n{endpoint.model} says:")
    shown, explanation = 0, tutor.Explanation(endpoint.model)
    for explanation in tutor.explain(endpoint, problem, source, verdict, diagnosis, ask):
        if shown and not explanation.text and not explanation.withheld:
            typer.echo("\n(so far it was thinking aloud; this is its answer:)\n", nl=False)
            shown = 0
        typer.echo(explanation.text[shown:], nl=False)
        shown = max(shown, len(explanation.text))
        if explanation.withheld:
            typer.echo(f"\n(no more of it is shown: {explanation.withheld})", nl=False)
    typer.echo()
    open_explanations().add(problem.slug, explanation)
    if explanation.text:
        typer.echo("did it help? `etude practice rate yes` or `etude practice rate no`")


class Helped(StrEnum):
    """Whether an explanation helped."""

    YES = "yes"
    NO = "no"


@practice.command("rate", epilog="Example:\n\n`etude practice rate yes`")
def rate_explanation(
    helped: Annotated[Helped, typer.Argument(help="Whether the explanation helped: yes or no.")],
    number: Annotated[
        int | None, typer.Option(help="Number of the explanation. Default: the last one.")
    ] = None,
) -> None:
    """Rate a model's explanation; `etude practice stats` shows the totals."""
    which, slug, model = open_explanations().rate(helped is Helped.YES, number)
    typer.echo(f"explanation {which}, of {slug} by {model}: {helped.value}")
