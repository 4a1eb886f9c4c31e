"""`etude chat`: chat with a base model and its fine-tuned version, side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.app.chatting import MAX_NEW_TOKENS
from etude.cli.complete import complete_run
from etude.cli.root import app

if TYPE_CHECKING:
    from etude.app.chatting import Chat, Sampling, Voice
    from etude.tuning.data.schema import Message

HELP = (
    "Type a message and Enter. Open with three double quotes to write several lines, close with "
    "three more. /new forgets the conversation, /quit (or Ctrl-D) leaves."
)


@app.command(
    epilog="Examples:\n\n"
    "`etude chat runs/latest`\n\n"
    "`etude chat smollm2-135m`\n\n"
    "`etude chat runs/latest --system 'Answer in one sentence.'`\n\n"
    "`cat function.py | etude chat runs/latest`"
)
def chat(
    model: Annotated[
        str,
        typer.Argument(
            help="A run (`latest`, a name, a path), or a model: alias, hub id, folder, `.gguf`.",
            autocompletion=complete_run,
        ),
    ] = "latest",
    tuned_only: Annotated[
        bool, typer.Option("--tuned-only", help="Show the fine-tuned model only.")
    ] = False,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Maximum length of an answer, in tokens.")
    ] = MAX_NEW_TOKENS,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="Sampling temperature; 0 always takes the most likely token."),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1.0,
            help="With a temperature: sample from the most likely tokens whose probabilities sum "
            "to this.",
        ),
    ] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With a temperature: the same seed gives the same answers, and base and tuned "
            "model the same luck. Default: another one each time.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            help="System message. Default: the one that all training rows had, if it was the same; "
            "an empty text is none.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder that runs are kept in.")] = Path("runs"),
) -> None:
    """Chat with a base model and its fine-tuned version, side by side.

    If standard input is not a terminal, one message is read from it.
    """
    from etude.app.chatting import Sampling, open_chat
    from etude.core.errors import RunError
    from etude.tuning.report.live import TerminalProgress

    opened = open_chat(
        model, runs, tuned_only=tuned_only, system=system, progress=TerminalProgress()
    )
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)

    def answer(turns: dict[Voice, list[Message]]) -> None:
        _answer(opened, turns, sampling)

    if sys.stdin.isatty():
        if opened.predictor.system is not None:
            typer.echo(f"system: {opened.predictor.system}", err=True)
        _converse(opened.voices, answer)
    else:
        text = sys.stdin.read().strip()
        if not text:
            raise RunError("standard input is empty: there is no message to answer")
        answer(_asked({voice: [] for voice in opened.voices}, text))


def _asked(turns: dict[Voice, list[Message]], text: str) -> dict[Voice, list[Message]]:
    from etude.tuning.data.schema import Message

    for conversation in turns.values():
        conversation.append(Message("user", text))
    return turns


def _converse(
    voices: tuple[Voice, ...], answer: Callable[[dict[Voice, list[Message]]], None]
) -> None:
    """Read messages until the end of input; Ctrl-C ends an answer, not the conversation."""
    import readline  # noqa: F401  # pyright: ignore[reportUnusedImport] - line editing

    typer.echo(HELP, err=True)
    turns: dict[Voice, list[Message]] = {voice: [] for voice in voices}
    while True:
        try:
            text = _read_message()
        except (EOFError, KeyboardInterrupt):
            typer.echo("", err=True)
            return
        if text in ("/quit", "/exit"):
            return
        if text == "/new":
            turns = {voice: [] for voice in voices}
        elif text in ("/help", "/?"):
            typer.echo(HELP, err=True)
        elif text:
            try:
                answer(_asked(turns, text))
            except KeyboardInterrupt:
                for conversation in turns.values():
                    if conversation and conversation[-1].role == "user":
                        conversation.pop()
                typer.echo("(interrupted)", err=True)


def _read_message() -> str:
    line = input("\n> ").strip()
    if not line.startswith('"""'):
        return line
    lines = [line.removeprefix('"""')]
    while not lines[-1].rstrip().endswith('"""'):
        lines.append(input("... "))
    lines[-1] = lines[-1].rstrip().removesuffix('"""')
    return "\n".join(lines).strip("\n")


def _answer(chat: Chat, turns: dict[Voice, list[Message]], sampling: Sampling) -> None:
    """Let each voice answer its own conversation, shown as it is written."""
    from etude.tuning.data.schema import Message

    with _columns(chat.voices, chat.predictor.adapted) as write:
        for voice in chat.voices:
            said = chat.answer(
                voice, turns[voice], sampling, lambda text, voice=voice: write(voice, text)
            )
            turns[voice].append(Message("assistant", said.text))


@contextmanager
def _columns(voices: tuple[Voice, ...], adapted: bool) -> Generator[Callable[[Voice, str], None]]:
    """Show what each voice writes: in columns on a terminal, else one after the other."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    console = Console(highlight=False)
    names: dict[Voice, str] = {"base": "base", "tuned": "tuned" if adapted else "answer"}
    texts = dict.fromkeys(voices, "")

    def drawn() -> Table:
        from rich.text import Text

        table = Table(expand=True, show_lines=False)
        for voice in voices:
            table.add_column(names[voice], ratio=1, overflow="fold")
        table.add_row(*(Text(texts[voice].strip()) for voice in voices))
        return table

    if not console.is_terminal:
        yield lambda voice, text: texts.__setitem__(voice, texts[voice] + text)
        for voice in voices:
            if len(voices) > 1:
                typer.echo(f"--- {names[voice]}")
            typer.echo(texts[voice].strip())
        return
    with Live(get_renderable=drawn, console=console, refresh_per_second=8):
        yield lambda voice, text: texts.__setitem__(voice, texts[voice] + text)
