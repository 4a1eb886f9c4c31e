"""Loss mask: the trained tokens of a rendering.

A prompt must have the same tokens as it has alone, as in inference; an answer is trained from its
first token through its end token.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from etude.tuning.data.chat_template import ChatLayout
from etude.tuning.data.plain_layout import PlainLayout
from etude.tuning.data.rendering import Refusal, Rendering, nothing_trained


class Marker:
    """Computes the loss mask of renderings for one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Return the tokens of each text, without special tokens added."""
        if not texts:
            return []
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return cast("list[list[int]]", encoded["input_ids"])

    def mark(
        self,
        layout: ChatLayout | PlainLayout,
        rendering: Rendering,
        ids: list[int],
        prompts: list[list[int]],
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]] | Refusal:
        """Compute the loss mask of a rendering.

        Args:
            layout: the layout that rendered it.
            rendering: its text and answers.
            ids: tokens of the text.
            prompts: tokens of the text up to each answer.

        Returns:
            Tokens, (T,), and whether each is a target, (T,).
        """
        if any(ids[: len(prompt)] != prompt for prompt in prompts):
            pieces = self._pieces(rendering)
            joined = [token for piece in pieces for token in piece]
            if self.tokenizer.decode(joined) != self.tokenizer.decode(ids):
                return Refusal(
                    "the prompt's last token depends on the answer that follows; begin the "
                    "answer with something other than white space"
                )
            ids = joined
            lengths = np.cumsum([len(piece) for piece in pieces])
            starts = [int(length) for length in lengths[:-1]]
        else:
            starts = [len(prompt) for prompt in prompts]
        if layout.appends_end:
            starts = [len(layout.start_ids) + starts[0]]
            # A text may contain its end token; answers that do are refused.
            ending = [] if ids[-1:] == [layout.end_id] else [layout.end_id]
            ids = [*layout.start_ids, *ids, *ending]
            stops = [len(ids)]
        else:
            stops = [ids.index(layout.end_id, start) + 1 for start in starts]
        trained = np.zeros(len(ids), dtype=np.bool_)
        for start, stop in zip(starts, stops, strict=True):
            trained[start:stop] = True
        trained[:1] = False
        if self._starts_twice(ids):
            name = self.tokenizer.convert_ids_to_tokens(ids[0])
            return Refusal(f"the start token {name!r} occurs twice; remove it from the data")
        if not trained.any():
            return nothing_trained("the text has only one token")
        return np.array(ids, dtype=np.int32), trained

    def _pieces(self, rendering: Rendering) -> list[list[int]]:
        """Tokenise so that every answer begins with a new token.

        If an answer begins with white space, a tokenizer may merge it into the prompt's last token.
        In inference the prompt is tokenised alone, so it must be here.
        """
        cuts = [0, *(start for start, _ in rendering.answers), len(rendering.text)]
        return self.tokenize([rendering.text[start:stop] for start, stop in pairwise(cuts)])

    def _starts_twice(self, ids: list[int]) -> bool:
        start = self.tokenizer.bos_token_id
        return start is not None and ids[:2] == [start, start]
