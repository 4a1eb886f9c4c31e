"""`etude practice daily | stats`: the daily problem and your progress."""

from __future__ import annotations

from datetime import timedelta

import typer

from etude.cli.practice import practice
from etude.cli.practice.context import Shelf


@practice.command("daily", epilog="Example:\n\n`etude practice daily`")
def show_daily(shelf: Shelf = None) -> None:
    """Show today's problem."""
    from etude.app.practice import daily_problem

    daily = daily_problem(shelf=shelf)
    choice = daily.choice
    done = "solved" if daily.solved else choice.why
    typer.echo(f"{choice.day}: {choice.problem.title} ({choice.problem.front.difficulty}, {done})")
    typer.echo(f"`etude practice start {choice.problem.slug}`")


@practice.command("stats", epilog="Example:\n\n`etude practice stats`")
def show_stats() -> None:
    """Show solved problems, your streak, and concepts to review."""
    from etude.app.practice import open_progress, standing
    from etude.app.settings import UserSettings

    progress = open_progress()
    record, today = standing(progress), progress.today()
    stats = record.stats
    typer.echo(f"solved {stats.solved} of {stats.tried} tried, {stats.submissions} submissions")
    if UserSettings(progress.engine, progress.user).read().streak:
        typer.echo(f"streak {stats.streak} days, longest {stats.longest}")
    days = [today - timedelta(days=back) for back in range(27, -1, -1)]
    weeks = "".join("▁▃▅▇█"[min(stats.by_day.get(day, 0), 4)] for day in days)
    typer.echo(f"last four weeks {weeks}")
    for concept in stats.concepts[:12]:
        due = "due now" if concept.due <= today else f"due {concept.due}"
        full = round(concept.mastery * 5)
        counts = f"{concept.right} right, {concept.wrong} wrong"
        typer.echo(f"{'█' * full}{'░' * (5 - full)} {concept.name} · {counts} · {due}")
    for model in record.models:
        rated = f"{model.helped} helped, {model.did_not} did not"
        typer.echo(f"{model.model} explained {model.said} times: {rated}")
