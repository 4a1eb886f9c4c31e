"""`etude practice daily | stats`: the daily problem and your progress."""

from __future__ import annotations

from datetime import timedelta

import typer

from etude.cli.practice import practice
from etude.cli.practice.context import Shelf, open_explanations, open_progress


@practice.command("daily", epilog="Example:\n\n`etude practice daily`")
def show_daily(shelf: Shelf = None) -> None:
    """Show today's problem."""
    from etude.practice.daily import problem_of_the_day
    from etude.practice.problem import load_shelf

    progress = open_progress()
    choice = problem_of_the_day(progress.engine, progress, load_shelf(shelf))
    done = "solved" if choice.problem.slug in progress.solved() else choice.why
    typer.echo(f"{choice.day}: {choice.problem.title} ({choice.problem.front.difficulty}, {done})")
    typer.echo(f"`etude practice start {choice.problem.slug}`")


@practice.command("stats", epilog="Example:\n\n`etude practice stats`")
def show_stats() -> None:
    """Show solved problems, your streak, and concepts to review."""
    progress = open_progress()
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
    for record in open_explanations().by_model():
        rated = f"{record.helped} helped, {record.did_not} did not"
        typer.echo(f"{record.model} explained {record.said} times: {rated}")
