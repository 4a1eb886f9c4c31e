"""Looking at data as the model will: token by token, each trained, context or dropped."""

from __future__ import annotations

import html
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, cast

from etude.tuning.data.encode import EncodedSample

State = Literal["trained", "context", "dropped"]


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one token, or of a few that are one character together."""

    text: str
    state: State


def pieces(encoded: EncodedSample, tokenizer: Any) -> list[Piece]:
    """Return a sample's text cut at its tokens; joined, it is the text of the whole.

    A character of several tokens goes with the last of them; a token that has no text of its own
    (part of a character) shows as an empty piece.
    """
    ids: list[int] = encoded.input_ids.tolist()
    found: list[Piece] = []
    start = 0
    for end in range(1, len(ids) + 1):
        text = cast("str", tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False))
        # An unfinished character decodes to the replacement character; wait for its other tokens.
        if text.endswith("\ufffd") and end < len(ids) and end - start < 4:
            continue
        state: State = "trained" if encoded.trained[end - 1] else "context"
        found.append(Piece(text, state))
        start = end
    return found


def html_sample(encoded: EncodedSample, tokenizer: Any) -> str:
    """Return a sample as HTML: a span a run of tokens, of class trained, context or dropped.

    Tokens are separated by `<wbr>`; the text is escaped. The caller brings the style sheet.
    """
    runs: list[str] = []
    for state, run in groupby(pieces(encoded, tokenizer), key=lambda piece: piece.state):
        text = "<wbr>".join(html.escape(piece.text) for piece in run)
        runs.append(f'<span class="{state}">{text}</span>')
    return "".join(runs)
