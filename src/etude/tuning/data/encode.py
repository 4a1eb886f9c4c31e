r"""From samples to tokens, and which of them are trained.

    <|im_start|> user \n 2 + 2 ? <|im_end|> \n <|im_start|> assistant \n 4 <|im_end|> \n
         ·        ·   ·  · · · ·      ·      ·      ·           ·     ·  T     T       ·

Only what the model itself would write is trained: each answer and the token that ends it, neither
the role headers before it nor the template's text after it. `trained[t]` says that token t is a
target, that is, that the model learns to predict it from the tokens before t. The first token has
none before it, so it is never trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import numpy as np

from etude.core.errors import DataError
from etude.core.progress import Progress, SilentProgress
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.chat_template import (
    ChatLayout,
    PlainLayout,
    Refusal,
    Rendering,
    nothing_trained,
    through_last_answer,
)
from etude.tuning.data.counts import Counts, EncodingStats, Tally
from etude.tuning.data.encoded import EncodedSample, EncodedSet
from etude.tuning.data.loss_mask import Marker
from etude.tuning.data.schema import Message, Sample

BATCH = 512
"""Samples tokenised in one call; the tokenizer works on the texts of a call in parallel."""

TOO_LONG = "longer than data.max_length"


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
        self._marker = Marker(tokenizer)
        self._chat = (
            ChatLayout(tokenizer, spec.trained_turns) if self.templated else PlainLayout(tokenizer)
        )
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
        kept: list[EncodedSample] = []
        sources: list[Sample] = []

        def keep(encoded: EncodedSample, source: Sample) -> None:
            kept.append(encoded)
            sources.append(source)

        stats = self._encode_stream(samples, keep, progress, may_be_empty)
        return EncodedSet(kept, sources, stats)

    def encode_each(
        self,
        samples: Iterable[Sample],
        keep: Callable[[EncodedSample], None],
        progress: Progress | None = None,
    ) -> EncodingStats:
        """Encode as `encode_all`, and hand on each sample instead of holding all.

        Raises:
            DataError: as `encode_all`.
        """
        return self._encode_stream(samples, lambda encoded, _: keep(encoded), progress, False)

    def _encode_stream(
        self,
        samples: Iterable[Sample],
        keep: Callable[[EncodedSample, Sample], None],
        progress: Progress | None,
        may_be_empty: bool,
    ) -> EncodingStats:
        progress = progress or SilentProgress()
        counts = Counts()
        stream = iter(samples)
        while batch := list(islice(stream, BATCH)):
            for sample, outcome, source in self._outcomes(batch, counts.split):
                if isinstance(outcome, Refusal):
                    reason = self._reason_to_drop(outcome)
                    if reason is None:
                        raise DataError(f"{sample.origin}: {outcome.message}")
                    counts.dropped.setdefault(reason, Tally()).add(sample.origin)
                    continue
                if source is not sample:
                    counts.cut.add(sample.origin)
                counts.add(
                    [len(side) for side in outcome.sides],
                    sum(side.trained_tokens for side in outcome.sides),
                    outcome.desirable,
                )
                keep(outcome, source)
            progress.advance(len(batch))
        if not counts.lengths and not may_be_empty:
            reasons = "; ".join(f"{reason}: {tally}" for reason, tally in counts.dropped.items())
            raise DataError(f"no sample is left to train on ({reasons or 'there were none'})")
        return counts.stats()

    def encode_uncut(self, sample: Sample) -> EncodedSample:
        """Encode one sample in full, whatever its length, to look at it.

        Raises:
            DataError: it cannot be trained on at any length.
        """
        outcome = self._encode_batch([sample])[0]
        if isinstance(outcome, Refusal):
            raise DataError(f"{sample.origin}: {outcome.message}")
        return outcome

    def outcomes_uncut(self, samples: Sequence[Sample]) -> list[EncodedSample | Refusal]:
        """Encode samples in full, whatever their length; of one that cannot be, say why."""
        return self._encode_batch(samples)

    def prompt_ids(self, sample: Sample) -> list[int]:
        """Return the tokens that the model is given to generate the last answer of `sample`.

        Raises:
            DataError: there is no answer to generate.
        """
        if not through_last_answer(sample):
            raise DataError(f"{sample.origin}: there is no answer to generate")
        prompt = self._chat.prompt(sample)
        return [*self._chat.start_ids, *self._marker.tokenize([prompt])[0]]

    def reference(self, sample: Sample) -> str:
        """Return the last answer of `sample`, or an empty string."""
        turns = through_last_answer(sample)
        if not turns or turns[-1].content.strip() or not turns[-1].tool_calls:
            return turns[-1].content if turns else ""
        # Calls are compared as the template writes them.
        rendering = self._chat.render([replace(sample, context=len(turns) - 1, rejected=())])[0]
        if isinstance(rendering, Refusal):
            return ""
        start, stop = rendering.answers[-1]
        end = cast("str", self.tokenizer.convert_ids_to_tokens(self.end_id))
        return rendering.text[start:stop].removesuffix(end).strip()

    # Several samples of one

    def _outcomes(
        self, batch: Sequence[Sample], split: Tally
    ) -> Iterator[tuple[Sample, EncodedSample | Refusal, Sample]]:
        """Encode a batch, and conversations that need it as one sample an answer.

        Such a sample holds the conversation up to its answer, as the model is given it in use.

        Yields:
            Each sample, what became of it, and what was encoded.
        """
        for sample, (outcome, source) in zip(batch, self._encode_within_length(batch), strict=True):
            if not isinstance(outcome, Refusal) or not outcome.rewrites or sample.rejected:
                yield sample, outcome, source
                continue
            split.add(sample.origin)
            parts = [
                replace(sample, messages=sample.messages[: place + 1], context=place)
                for place, turn in enumerate(sample.messages)
                if turn.role == "assistant" and place >= sample.context
            ]
            for part, (own, cut) in zip(parts, self._encode_within_length(parts), strict=True):
                yield part, own, cut

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
            if isinstance(encoded, Refusal) or encoded.longest <= self.spec.max_length:
                outcomes.append((encoded, sample))
                continue
            shorter = self._cut(sample, encoded) if self.spec.too_long == "cut_prompt" else None
            outcomes.append(shorter or (self._too_long(encoded.longest), sample))
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
        the model sees in training the layout that it will see in use. Of a pair, it is a message
        that both answers share.
        """
        shared = sample.messages[: sample.context] if sample.rejected else sample.messages
        places = [place for place, turn in enumerate(shared) if turn.role == "user"]
        if not places:
            return None
        place = max(places, key=lambda place: len(sample.messages[place].content))
        ids = self._marker.tokenize([sample.messages[place].content])[0]
        excess = encoded.longest - self.spec.max_length
        # Text that was cut may tokenise to a few tokens more, so once may not be enough.
        while 0 < excess < len(ids):
            ids = ids[excess:]
            # A cut within a character of several tokens leaves a piece that is no character.
            content = cast("str", self.tokenizer.decode(ids)).lstrip("\ufffd")
            shorter = replace(
                sample,
                messages=_with_turn(sample.messages, place, content),
                rejected=_with_turn(sample.rejected, place, content),
            )
            outcome = self._encode_batch([shorter])[0]
            if isinstance(outcome, Refusal):
                return None
            excess = outcome.longest - self.spec.max_length
            if excess <= 0:
                return outcome, shorter
        return None

    # Tokens

    def _layout(self, sample: Sample) -> ChatLayout | PlainLayout:
        if sample.text is None:
            return self._chat
        if self._plain is None:
            raise DataError("plain text needs an end token, and the tokenizer has none (eos_token)")
        return self._plain

    def _encode_batch(self, samples: Sequence[Sample]) -> list[EncodedSample | Refusal]:
        """Encode samples, each in full, whatever its length; of a pair, both sides."""
        sides = [side for sample in samples for side in sample.sides()]
        encoded = iter(self._encode_sides(sides))
        return [_joined(sample, [next(encoded) for _ in sample.sides()]) for sample in samples]

    def _encode_sides(self, samples: Sequence[Sample]) -> list[EncodedSample | Refusal]:
        """Render and tokenise conversations and texts."""
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
        tokens = iter(self._marker.tokenize(texts))
        outcomes: list[EncodedSample | Refusal] = []
        for sample, layout, rendering in zip(samples, layouts, renderings, strict=True):
            if isinstance(rendering, Refusal):
                outcomes.append(rendering)
                continue
            whole = next(tokens)
            prompts = [next(tokens) for _ in rendering.answers]
            marked = self._marker.mark(layout, rendering, whole, prompts)
            outcomes.append(
                marked if isinstance(marked, Refusal) else EncodedSample(*marked, sample.origin)
            )
        return outcomes


def _joined(sample: Sample, sides: list[EncodedSample | Refusal]) -> EncodedSample | Refusal:
    """Return a sample's encoded sides as one, or what was wrong with one of them."""
    better = sides[0]
    for name, side in zip(("chosen", "rejected"), sides, strict=False):
        if isinstance(side, Refusal):
            told = f"{name}: {side.message}" if sample.rejected else side.message
            return replace(side, message=told)
    if isinstance(better, Refusal):
        return better
    if not sample.rejected:
        return replace(better, desirable=sample.desirable)
    worse = cast("EncodedSample", sides[1])
    if np.array_equal(better.input_ids, worse.input_ids):
        return nothing_trained("both answers are the same")
    return replace(better, rejected=worse)


def _with_turn(turns: tuple[Message, ...], place: int, content: str) -> tuple[Message, ...]:
    """Return turns with other words in one of them; none where there are none."""
    if not turns:
        return ()
    return (*turns[:place], replace(turns[place], content=content), *turns[place + 1 :])
