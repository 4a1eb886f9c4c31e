r"""From samples to tokens, and which of them are trained.

    <|im_start|> user \n 2 + 2 ? <|im_end|> \n <|im_start|> assistant \n 4 <|im_end|> \n
         ·        ·   ·  · · · ·      ·      ·      ·           ·     ·  T     T       ·

Only what the model itself would write is trained: each answer and the token that ends it, neither
the role headers before it nor the template's text after it. `trained[t]` says that token t is a
target, that is, that the model learns to predict it from the tokens before t. The first token has
none before it, so it is never trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from etude.errors import DataError
from etude.tuning.data.rendering import (
    ChatLayout,
    PlainLayout,
    Refusal,
    Rendering,
    nothing_trained,
    through_last_answer,
)
from etude.tuning.data.schema import Message, Sample
from etude.tuning.progress import Progress, SilentProgress
from etude.tuning.specs import DataSpec

BATCH = 512
"""Samples tokenised in one call; the tokenizer works on the texts of a call in parallel."""

TOO_LONG = "longer than data.max_length"


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSample:
    """The tokens of one sample."""

    input_ids: NDArray[np.int32]
    """(T,)"""

    trained: NDArray[np.bool_]
    """(T,) whether token t is a target; `trained[0]` is False."""

    origin: str
    """Where the sample was read."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def trained_tokens(self) -> int:
        """How many tokens are targets."""
        return int(self.trained.sum())


@dataclass
class Tally:
    """How many samples something happened to, and where the first of them are."""

    count: int = 0
    first: list[str] = field(default_factory=list[str])

    def add(self, origin: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < 3:
            self.first.append(origin)

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.first) else ""
        return f"{self.count:,} ({', '.join(self.first)}{more})"


@dataclass(frozen=True)
class EncodingStats:
    """What became of the samples."""

    samples: int
    tokens: int
    trained_tokens: int
    longest: int
    """Tokens of the longest sample kept."""

    dropped: dict[str, Tally]
    """By reason."""

    cut: Tally
    """Samples whose prompt was shortened from the left."""

    histogram: list[tuple[int, int, int]]
    """Lengths as (from, up to and including, samples)."""


@dataclass(frozen=True)
class EncodedSet:
    """The samples kept, in order."""

    samples: list[EncodedSample]
    sources: list[Sample]
    """What `samples` were made of, prompts cut where they had to be."""

    stats: EncodingStats

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        return [len(sample) for sample in self.samples]


class Encoder:
    """Turns samples into tokens as one model's tokenizer and chat template say.

    Conversations follow the chat template; a model without one gets the prompt, the answer and the
    end token. Plain text is text and end token, and all of it is trained.

    Raises:
        DataError: at construction, if the tokenizer or its template cannot be trained with.
    """

    def __init__(self, tokenizer: Any, spec: DataSpec) -> None:
        self.tokenizer = tokenizer
        self.spec = spec
        self.templated = bool(tokenizer.chat_template)
        self._chat = ChatLayout(tokenizer) if self.templated else PlainLayout(tokenizer)
        self._plain = PlainLayout(tokenizer) if tokenizer.eos_token_id is not None else None
        self.end_id = self._chat.end_id
        """The token that ends an answer."""

    def encode(self, sample: Sample) -> EncodedSample:
        """Encode one sample.

        Raises:
            DataError: it cannot be trained on; also where the recipe says to leave such ones out.
        """
        outcome, _ = self._encode_within_length([sample])[0]
        if isinstance(outcome, Refusal):
            raise DataError(f"{sample.origin}: {outcome.message}")
        return outcome

    def encode_all(
        self,
        samples: Iterable[Sample],
        progress: Progress | None = None,
        *,
        may_be_empty: bool = False,
    ) -> EncodedSet:
        """Encode samples in batches; leave out or refuse as the recipe says.

        Args:
            samples: read as a stream.
            progress: told of each batch; its caller starts and ends it.
            may_be_empty: whether it is no error that none is left.

        Raises:
            DataError: a sample cannot be trained on and the recipe does not say to leave it out,
                or none is left.
        """
        progress = progress or SilentProgress()
        kept: list[EncodedSample] = []
        sources: list[Sample] = []
        dropped: dict[str, Tally] = {}
        cut = Tally()
        stream = iter(samples)
        while batch := list(islice(stream, BATCH)):
            outcomes = self._encode_within_length(batch)
            for sample, (outcome, source) in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Refusal):
                    reason = self._reason_to_drop(outcome)
                    if reason is None:
                        raise DataError(f"{sample.origin}: {outcome.message}")
                    dropped.setdefault(reason, Tally()).add(sample.origin)
                    continue
                if source is not sample:
                    cut.add(sample.origin)
                kept.append(outcome)
                sources.append(source)
            progress.advance(len(batch))
        if not kept and not may_be_empty:
            reasons = "; ".join(f"{reason}: {tally}" for reason, tally in dropped.items())
            raise DataError(f"no sample is left to train on ({reasons or 'there were none'})")
        return EncodedSet(kept, sources, _stats(kept, dropped, cut))

    def encode_uncut(self, sample: Sample) -> EncodedSample:
        """Encode one sample in full, whatever its length, to look at it.

        Raises:
            DataError: it cannot be trained on at any length.
        """
        outcome = self._encode_batch([sample])[0]
        if isinstance(outcome, Refusal):
            raise DataError(f"{sample.origin}: {outcome.message}")
        return outcome

    def prompt_ids(self, sample: Sample) -> list[int]:
        """Return the tokens that the model is given to generate the last answer of `sample`.

        Raises:
            DataError: there is no answer to generate.
        """
        if not through_last_answer(sample):
            raise DataError(f"{sample.origin}: there is no answer to generate")
        prompt = self._chat.prompt(sample)
        return [*self._chat.start_ids, *self._tokenize([prompt])[0]]

    def reference(self, sample: Sample) -> str:
        """Return the last answer of `sample`, or an empty string."""
        turns = through_last_answer(sample)
        return turns[-1].content if turns else ""

    # Length

    def _reason_to_drop(self, refusal: Refusal) -> str | None:
        """Return what a sample is left out for, or None where it must stop the run."""
        choice = self.spec.too_long if refusal.reason == TOO_LONG else self.spec.no_trained_tokens
        return None if choice == "error" else refusal.reason

    def _encode_within_length(
        self, samples: Sequence[Sample]
    ) -> list[tuple[EncodedSample | Refusal, Sample]]:
        """Encode, cutting prompts where the recipe says so; return the sample encoded as well."""
        outcomes: list[tuple[EncodedSample | Refusal, Sample]] = []
        for sample, encoded in zip(samples, self._encode_batch(samples), strict=True):
            if isinstance(encoded, Refusal) or len(encoded) <= self.spec.max_length:
                outcomes.append((encoded, sample))
                continue
            shorter = self._cut(sample, encoded) if self.spec.too_long == "cut_prompt" else None
            outcomes.append(shorter or (self._too_long(len(encoded)), sample))
        return outcomes

    def _too_long(self, length: int) -> Refusal:
        return Refusal(
            f"{length:,} tokens, more than data.max_length ({self.spec.max_length:,}); raise it, "
            "or set data.too_long to drop or cut_prompt",
            TOO_LONG,
        )

    def _cut(self, sample: Sample, encoded: EncodedSample) -> tuple[EncodedSample, Sample] | None:
        """Shorten the longest user message from the left until the sample fits, if it can.

        The message is cut, not the tokens of the whole: role headers and system message stay, so
        the model sees in training the layout that it will see in use.
        """
        places = [place for place, turn in enumerate(sample.messages) if turn.role == "user"]
        if not places:
            return None
        place = max(places, key=lambda place: len(sample.messages[place].content))
        ids = self._tokenize([sample.messages[place].content])[0]
        excess = len(encoded) - self.spec.max_length
        # Text that was cut may tokenise to a few tokens more, so once may not be enough.
        while 0 < excess < len(ids):
            ids = ids[excess:]
            # A cut within a character of several tokens leaves a piece that is no character.
            content = cast("str", self.tokenizer.decode(ids)).lstrip("\ufffd")
            turns = list(sample.messages)
            turns[place] = Message("user", content)
            shorter = Sample(tuple(turns), None, sample.origin)
            outcome = self._encode_batch([shorter])[0]
            if isinstance(outcome, Refusal):
                return None
            excess = len(outcome) - self.spec.max_length
            if excess <= 0:
                return outcome, shorter
        return None

    # Tokens

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return cast("list[list[int]]", encoded["input_ids"])

    def _layout(self, sample: Sample) -> ChatLayout | PlainLayout:
        if sample.text is None:
            return self._chat
        if self._plain is None:
            raise DataError("plain text needs an end token, and the tokenizer has none (eos_token)")
        return self._plain

    def _encode_batch(self, samples: Sequence[Sample]) -> list[EncodedSample | Refusal]:
        """Render and tokenise samples, each in full, whatever its length."""
        layouts = [self._layout(sample) for sample in samples]
        renderings: list[Rendering | Refusal] = [Refusal("")] * len(samples)
        for layout in set(layouts):
            places = [place for place, own in enumerate(layouts) if own is layout]
            rendered = layout.render([samples[place] for place in places])
            for place, rendering in zip(places, rendered, strict=True):
                renderings[place] = rendering
        # One call for all: each text whole, and its beginnings up to each answer.
        texts: list[str] = []
        for rendering in renderings:
            if isinstance(rendering, Rendering):
                texts.append(rendering.text)
                texts += [rendering.text[:start] for start, _ in rendering.answers]
        tokens = iter(self._tokenize(texts))
        outcomes: list[EncodedSample | Refusal] = []
        for sample, layout, rendering in zip(samples, layouts, renderings, strict=True):
            if isinstance(rendering, Rendering):
                whole = next(tokens)
                prompts = [next(tokens) for _ in rendering.answers]
                outcomes.append(self._mark(sample, layout, rendering, whole, prompts))
            else:
                outcomes.append(rendering)
        return outcomes

    def _mark(
        self,
        sample: Sample,
        layout: ChatLayout | PlainLayout,
        rendering: Rendering,
        ids: list[int],
        prompts: list[list[int]],
    ) -> EncodedSample | Refusal:
        """Mark which of a rendering's tokens are trained.

        Args:
            sample: what was rendered.
            layout: how.
            rendering: its text and answers.
            ids: tokens of the text.
            prompts: tokens of the text up to each answer.
        """
        if any(ids[: len(prompt)] != prompt for prompt in prompts):
            pieces = self._pieces(rendering)
            joined = [token for piece in pieces for token in piece]
            if self.tokenizer.decode(joined) != self.tokenizer.decode(ids):
                return Refusal(
                    "the prompt's last token changes with the answer that follows; begin the "
                    "answer with something other than white space"
                )
            ids = joined
            lengths = np.cumsum([len(piece) for piece in pieces])
            starts = [int(length) for length in lengths[:-1]]
        else:
            starts = [len(prompt) for prompt in prompts]
        if layout.appends_end:
            starts = [len(layout.start_ids) + starts[0]]
            # A text may bring its end token along; an answer that does is refused.
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
            return Refusal(f"the start token {name!r} stands twice; take it out of the data")
        if not trained.any():
            return nothing_trained("the text has no token beside its first")
        return EncodedSample(np.array(ids, dtype=np.int32), trained, sample.origin)

    def _pieces(self, rendering: Rendering) -> list[list[int]]:
        """Tokenise so that every answer begins with a token of its own.

        Where an answer begins with white space, a tokenizer may draw it into the prompt's last
        token. In use the prompt is tokenised alone, so it must be here.
        """
        cuts = [0, *(start for start, _ in rendering.answers), len(rendering.text)]
        return self._tokenize([rendering.text[start:stop] for start, stop in pairwise(cuts)])

    def _starts_twice(self, ids: list[int]) -> bool:
        start = self.tokenizer.bos_token_id
        return start is not None and ids[:2] == [start, start]


def _stats(kept: list[EncodedSample], dropped: dict[str, Tally], cut: Tally) -> EncodingStats:
    lengths = [len(sample) for sample in kept]
    return EncodingStats(
        samples=len(kept),
        tokens=sum(lengths),
        trained_tokens=sum(sample.trained_tokens for sample in kept),
        longest=max(lengths, default=0),
        dropped=dropped,
        cut=cut,
        histogram=histogram(lengths),
    )


def histogram(lengths: Sequence[int], bars: int = 12) -> list[tuple[int, int, int]]:
    """Count lengths in at most `bars` ranges of one round width: (from, to inclusive, count)."""
    if not lengths:
        return []
    longest = max(lengths)
    widths = (step * 10**power for power in range(10) for step in (1, 2, 5))
    width = next(width for width in widths if width * bars >= longest)
    counts = np.bincount((np.asarray(lengths) - 1) // width)
    return [
        (place * width + 1, (place + 1) * width, int(count)) for place, count in enumerate(counts)
    ]
