"""The terminal view, on a terminal and off one."""

from __future__ import annotations

import io
import re

from rich.console import Console

from etude.tuning.report.live import LiveView, TerminalProgress


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=100, highlight=False)


def terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, highlight=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def frames(console: Console) -> str:
    """What was drawn, escape sequences taken out."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written(console))


def record(step: int, seconds: float, loss: float = 2.0) -> dict[str, object]:
    return {
        "step": step,
        "loss": loss,
        "lr": 1e-3,
        "grad_norm": 0.5,
        "tokens_per_s": 1234.0,
        "rss": 1_120_000_000,
        "seconds": seconds,
    }


def test_off_a_terminal_a_line_is_printed_every_so_many_seconds_of_training_and_at_the_end():
    console = plain_console()
    with LiveView(100, console=console, line_every=10.0) as view:
        for step in range(1, 101):
            view.update(record(step, seconds=float(step)))
    steps = [int(step) for step in re.findall(r"^step (\d+)/100", written(console), re.MULTILINE)]
    assert steps == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]
    assert "\x1b" not in written(console)


def test_line_says_loss_rate_speed_memory_and_time_left():
    console = plain_console()
    view = LiveView(200, console=console, line_every=0.0)
    view.update(record(99, 198.0))
    view.update(record(100, 200.0))
    line = written(console).splitlines()[-1]
    for part in ("step 100/200", "loss 2.000", "lr 1.00e-3", "1,234 tokens/s", "1.12 GB"):
        assert part in line
    # Two seconds a step, a hundred steps to go.
    assert "3:20 left" in line


def test_time_left_follows_the_speed_of_late_and_not_of_the_first_steps():
    view = LiveView(1_000, console=plain_console(), quiet=True)
    seconds = 0.0
    for step in range(1, 101):
        seconds += 60.0 if step <= 50 else 1.0
        view.update(record(step, seconds))
    assert view.seconds_left == 900.0


def test_resumed_run_counts_the_time_left_from_where_it_stands():
    view = LiveView(400, console=plain_console(), quiet=True)
    view.update(record(301, 1_000.0))
    assert view.seconds_left is None
    view.update(record(302, 1_003.0))
    assert view.seconds_left == 98 * 3.0


def test_quiet_view_and_progress_print_nothing_at_all():
    for console in (plain_console(), terminal()):
        with LiveView(2, console=console, quiet=True) as view:
            view.message("hello")
            view.evaluation({"step": 0, "eval_loss": 3.0})
            view.update(record(1, 1.0))
        progress = TerminalProgress(console, quiet=True, patience=0.0)
        progress.start("Loading", 3, "tensors")
        progress.advance(3)
        progress.finish()
        assert written(console) == ""


def test_terminal_view_shows_the_figures_and_the_change_of_the_evaluation_loss():
    console = terminal()
    with LiveView(40, console=console) as view:
        view.evaluation({"step": 0, "eval_loss": 4.0})
        for step in range(1, 21):
            view.update(record(step, step * 2.0, loss=4.0 - step / 10))
        view.evaluation({"step": 20, "eval_loss": 3.0})
    shown = frames(console)
    for part in (
        "step 20/40",
        "50 %",
        "0:40 elapsed",
        "0:40 left",
        "last 2.000",
        "3.000 (−25.0 %)",
    ):
        assert part in shown
    assert "▁" in shown and "█" in shown
    # The cursor is given back.
    assert written(console).rstrip().endswith("\x1b[?25h")


def test_terminal_view_survives_a_narrow_window_and_a_loss_that_is_not_finite():
    console = terminal(width=30)
    with LiveView(10, console=console) as view:
        view.update({**record(1, 1.0), "loss": None, "grad_norm": None})
        view.update(record(2, 2.0))
    assert "step 2/10" in frames(console)


def test_message_with_brackets_is_printed_as_it_is():
    console = terminal()
    with LiveView(10, console=console) as view:
        view.message("left out [bold]3[/bold] of [12]")
    assert "left out [bold]3[/bold] of [12]" in frames(console)


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_work_that_took_long_leaves_a_line_and_quick_work_none():
    console, clock = plain_console(), Clock()
    progress = TerminalProgress(console, clock=clock)
    progress.start("Tokenising", 1_500, "samples")
    clock.now += 1.0
    progress.advance(1_500)
    progress.finish()
    assert written(console) == ""
    progress.start("Downloading", None, "B")
    clock.now += 3.0
    progress.advance(98_000_000)
    assert written(console) == "Downloading …\n"
    progress.finish()
    assert written(console).splitlines()[-1] == "Downloading: 98.0 MB in 3.0 s"


def test_starting_new_work_ends_the_work_before_it():
    console, clock = terminal(), Clock()
    progress = TerminalProgress(console, clock=clock)
    progress.start("First", 1, "steps")
    clock.now += 5.0
    progress.advance()
    progress.start("Second", 1, "steps")
    progress.finish()
    progress.finish()
    assert "First: 1 steps in 5.0 s" in frames(console)
    assert "Second:" not in frames(console)


def test_bar_can_be_drawn_while_the_training_view_stands():
    """Answers are generated in the middle of training."""
    console = terminal()
    with LiveView(10, console=console) as view:
        view.update(record(1, 1.0))
        progress = TerminalProgress(console)
        progress.start("Generating answers", 16, "samples")
        progress.advance(4)
        progress.finish()
        view.update(record(2, 2.0))
    assert "step 2/10" in frames(console)


def test_view_of_a_resumed_run_begins_where_the_run_left_off():
    console = terminal(120)
    earlier = [record(step, 60.0 * step, loss=4.0 - step / 10) for step in range(1, 11)]
    earlier.append({"step": 10, "eval_loss": 3.5})
    with LiveView(20, done=10, earlier=earlier, console=console) as view:
        view.close()
    shown = frames(console)
    assert "step 10/20" in shown and "50 %" in shown
    assert "10:00 elapsed" in shown and "10:00 left" in shown
    assert "evaluation loss 3.500" in shown and "last 3.000" in shown
