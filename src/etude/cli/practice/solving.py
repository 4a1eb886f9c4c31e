"""`etude practice list | start | run | submit | hint | explain | rate`: solve problems."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.app import practice as service
from etude.cli.practice import practice
from etude.cli.practice.context import Answer, Require, Shelf, Slug, markdown, read_answer
from etude.cli.spinner import working
from etude.core.atomic_files import disk_reason
from etude.core.errors import ProblemError

if TYPE_CHECKING:
    from etude.practice.queue import QueueStatus


@practice.command(
    "list", epilog="Example:\n\n`etude practice list --collection llm --difficulty easy`"
)
def list_problems(
    collection: Annotated[str | None, typer.Option(help="List this collection only.")] = None,
    difficulty: Annotated[
        str | None, typer.Option(help="List this difficulty only: easy, medium or hard.")
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="List the problems of this track, in its order.")
    ] = None,
    shelf: Shelf = None,
) -> None:
    """List the problems and mark those that you have solved."""
    from rich.console import Console
    from rich.table import Table

    shown = service.list_problems(
        service.open_progress(),
        collection=collection,
        difficulty=difficulty,
        track=track,
        shelf=shelf,
    )
    table = Table(box=None, pad_edge=False)
    for name in ("", "problem", "title", "difficulty", "collection"):
        table.add_column(name)
    for listed in shown:
        problem, mark = listed.problem, "✓" if listed.solved else ""
        table.add_row(
            mark, problem.slug, problem.title, problem.front.difficulty, problem.collection
        )
    Console().print(table)
    typer.echo(f"{len(shown)} problems, {sum(listed.solved for listed in shown)} solved")


@practice.command("start", epilog="Example:\n\n`etude practice start create-tensordataset`")
def start_problem(slug: Slug, file: Answer = None, shelf: Shelf = None) -> None:
    """Show a problem and write its starter code to SLUG.py."""
    problem = service.open_problem(service.open_progress(), slug, shelf)
    kind = f"*{problem.front.difficulty}, {problem.collection}*"
    markdown(f"# {problem.title}\n\n{kind}\n\n{problem.statement}")
    path = file or Path(f"{slug}.py")
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(problem.starter)
    except FileExistsError:
        typer.echo(f"\n{path} is there already and stays as it is; now `etude practice run {slug}`")
        return
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # half a file would count as the person's answer
        raise ProblemError(f"{path} cannot be written: {disk_reason(error)}") from error
    typer.echo(f"\nwrote {path}; then `etude practice run {slug}`, `etude practice submit {slug}`")


@practice.command("run", epilog="Example:\n\n`etude practice run create-tensordataset`")
def run_visible(
    slug: Slug, file: Answer = None, shelf: Shelf = None, require: Require = None
) -> None:
    """Run the visible tests only, without recording the result."""
    from etude.practice.problem import find_problem

    problem = find_problem(slug, shelf)
    source = read_answer(slug, file)
    with working("starting the judge"):
        judged = service.run_answer(problem, source, require=require)
    _show(judged)
    if not judged.verdict.accepted:
        raise typer.Exit(1)


@practice.command("submit", epilog="Example:\n\n`etude practice submit create-tensordataset`")
def submit_answer(
    slug: Slug, file: Answer = None, shelf: Shelf = None, require: Require = None
) -> None:
    """Submit your answer to all tests."""
    from etude.practice.problem import find_problem

    problem = find_problem(slug, shelf)
    source = read_answer(slug, file)
    with working("waiting for the judge") as say:

        def show(status: QueueStatus) -> None:
            say(f"{status.position} before yours" if status.position else status.state)

        judged = service.submit_answer(problem, source, require=require, show=show)
    _show(judged)
    typer.echo(typer.style(f"submission {judged.key}", dim=True))
    if not judged.verdict.accepted:
        raise typer.Exit(1)


def _show(judged: service.Judged) -> None:
    """Print a verdict: one line first, then what helps."""
    verdict = judged.verdict
    sign, color = ("✓", "green") if verdict.accepted else ("✗", "red")
    mark = typer.style(sign, fg=color, bold=True)
    tests = f"{verdict.passed}/{verdict.total} tests"
    typer.echo(f"{mark} {verdict.name} · {tests} · {verdict.seconds * 1000:.0f} ms")
    if verdict.printed:
        typer.echo(f"--- printed in visible tests\n{verdict.printed.rstrip()}\n---")
    if judged.diagnosis is not None:
        markdown(judged.diagnosis.text())
        typer.echo(f"\nhints: `etude practice hint {judged.problem.slug}`")
    typer.echo(typer.style(f"seed {verdict.seed} · isolation: {verdict.isolation}", dim=True))


@practice.command("hint", epilog="Example:\n\n`etude practice hint create-tensordataset`")
def show_hint(slug: Slug, shelf: Shelf = None) -> None:
    """Show the next hint."""
    from etude.practice.problem import find_problem

    problem = find_problem(slug, shelf)
    hints = service.next_hint(service.open_progress(), problem)
    for number, hint in enumerate(hints.shown, 1):
        markdown(f"**Hint {number} of {hints.total}.** {hint}\n")


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

    problem = find_problem(slug, shelf)
    if solution or slug in service.open_progress().solved():
        code = f"```python\n{problem.solution}```"
        markdown(f"# {problem.title}\n\n{problem.explanation}\n\n{code}")
        return
    source = read_answer(slug, file)
    with working("judging"):
        judged = service.run_answer(problem, source, visible_only=False)
    if judged.diagnosis is None:
        typer.echo(f"all tests pass: `etude practice submit {slug}` opens the lesson")
        return
    markdown(judged.diagnosis.text())
    _let_model_explain(source, judged, ask or [])


def _let_model_explain(source: str, judged: service.Judged, ask: list[str]) -> None:
    from etude.core.chat_client import ChatEndpoint

    endpoint = ChatEndpoint.from_environment()
    if endpoint is None:
        typer.echo("\nA model can explain it too: set ETUDE_LLM_URL and ETUDE_LLM_MODEL.")
        return
    typer.echo(f"\n{endpoint.model} says:")
    shown, text = 0, ""
    for explanation in service.explain_failure(endpoint, source, judged, ask):
        text = explanation.text
        if shown and not text and not explanation.withheld:
            typer.echo("\n(so far it was thinking aloud; this is its answer:)\n", nl=False)
            shown = 0
        typer.echo(text[shown:], nl=False)
        shown = max(shown, len(text))
        if explanation.withheld:
            typer.echo(f"\n(no more of it is shown: {explanation.withheld})", nl=False)
    typer.echo()
    if text:
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
    which, slug, model = service.open_explanations().rate(helped is Helped.YES, number)
    typer.echo(f"explanation {which}, of {slug} by {model}: {helped.value}")
