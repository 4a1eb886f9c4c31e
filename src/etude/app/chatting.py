"""A base model and its tuned version in conversation, each with its own answers.

Both share one copy of the weights: the base answers with the adapter switched off. Each voice goes
on with what it said itself, so that the two conversations have the user's messages in common only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from etude.core.errors import RunError

if TYPE_CHECKING:
    from etude.core.progress import Progress
    from etude.tuning.data.schema import Message
    from etude.tuning.predictor import Predictor

Voice = Literal["base", "tuned"]

MAX_NEW_TOKENS = 256
"""Of an answer, unless said otherwise."""


class StopAnswerError(Exception):
    """Raised by what receives an answer's pieces, to end it."""


@dataclass(frozen=True)
class Sampling:
    """How answers are generated."""

    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 0.0
    """0 always takes the most likely token."""
    top_p: float = 1.0
    """Share of probability that is sampled from."""
    seed: int | None = None
    """Of the sampling; None: another one each time."""


@dataclass(frozen=True)
class SpokenAnswer:
    """An answer to the end, or as far as it got."""

    text: str
    how: Literal["ended", "cut", "stopped"]
    """The model ended it; it was cut at `max_new_tokens`; its reader stopped it."""
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Chat:
    """A loaded model, and who speaks."""

    predictor: Predictor
    voices: tuple[Voice, ...]

    def answer(
        self,
        voice: Voice,
        turns: Sequence[Message],
        sampling: Sampling,
        write: Callable[[str], None],
    ) -> SpokenAnswer:
        """Let a voice answer the last message.

        Args:
            voice: that answers.
            turns: its conversation so far.
            sampling: how tokens are chosen.
            write: gets finished pieces of the text as they come, and an empty one for a token that
                finishes none. It may raise `StopAnswerError`.

        Raises:
            EtudeError: the model generates no text, or the chat template refuses the messages.
        """
        pieces: list[str] = []

        def keep(text: str) -> None:
            pieces.append(text)
            write(text)

        streamer = _streamer(self.predictor, keep)
        began = time.monotonic()
        try:
            text = self.predictor.reply(
                turns,
                tuned=voice == "tuned",
                max_new_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=sampling.seed,
                streamer=streamer,
            )
        except StopAnswerError:
            text = (("".join(pieces)) + streamer.rest()).strip()
            return SpokenAnswer(text, "stopped", streamer.tokens, time.monotonic() - began)
        ended = streamer.last in self.predictor.end_tokens
        return SpokenAnswer(
            text, "ended" if ended else "cut", streamer.tokens, time.monotonic() - began
        )


def open_chat(
    model: str,
    runs: Path = Path("runs"),
    *,
    tuned_only: bool = False,
    system: str | None = None,
    progress: Progress | None = None,
) -> Chat:
    """Load a run, or a model without one, to chat with.

    Args:
        model: a run (`latest`, a name, a path), or a model: alias, hub id, folder, `.gguf`.
        runs: folder that runs are kept in.
        tuned_only: leave the base out.
        system: system message; None: the one that all training rows had, if it was the same; an
            empty text: none.
        progress: reports loading.

    Raises:
        EtudeError: there is no such run or model, or it has saved nothing yet.
    """
    from etude.tuning.predictor import load, load_base
    from etude.tuning.runs.folder import find_run

    try:
        folder = find_run(model, runs)
    except RunError:
        # A word without a slash that is no run may be a model; `latest` never is.
        if model == "latest" or "runs" in Path(model).parts:
            raise
        predictor = load_base(model, progress=progress)
    else:
        predictor = load(folder, progress=progress)
    return chat_of(predictor, tuned_only=tuned_only, system=system)


def chat_of(predictor: Predictor, *, tuned_only: bool = False, system: str | None = None) -> Chat:
    """Return a chat with a model that is loaded; see `open_chat`."""
    if system is not None:
        predictor = predictor.with_system(system or None)
    alone = tuned_only or not predictor.adapted
    return Chat(predictor, ("tuned",) if alone else ("base", "tuned"))


def _streamer(predictor: Predictor, write: Callable[[str], None]) -> Any:
    """Return a streamer of transformers that hands finished pieces of text to `write`."""
    from transformers import TextStreamer

    class _Pieces(TextStreamer):
        def __init__(self) -> None:
            tokenizer: Any = predictor.loaded.tokenizer
            super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
            self.tokens, self.last = 0, -1

        def put(self, value: Any) -> None:
            if not self.next_tokens_are_prompt:
                self.tokens, self.last = self.tokens + 1, int(value[-1])
            super().put(value)  # pyright: ignore[reportUnknownMemberType] - it has no types

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            del stream_end
            write(text)

        def rest(self) -> str:
            """Return the words that were not handed out yet."""
            tokenizer: Any = self.tokenizer
            return str(tokenizer.decode(self.token_cache, **self.decode_kwargs))[self.print_len :]

    return _Pieces()
