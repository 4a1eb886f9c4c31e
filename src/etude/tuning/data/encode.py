r"""Encoding of samples: tokens and their loss mask.

    <|im_start|> user \n 2 + 2 ? <|im_end|> \n <|im_start|> assistant \n 4 <|im_end|> \n
         ·        ·   ·  · · · ·      ·      ·      ·           ·     ·  T     T       ·

Only what the model itself would generate is trained: each answer and its end token, not the role
headers before it or the template's text after it. `trained[t]` means that token t is a target: the
model learns to predict it from the tokens before t. The first token has no predecessor, so it is
never trained.
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
from etude.tuning.data.chat_template import ChatLayout
from etude.tuning.data.counts import Counts, EncodingStats, Tally
from etude.tuning.data.encoded import EncodedSample, EncodedSet
from etude.tuning.data.loss_mask import Marker
from etude.tuning.data.plain_layout import PlainLayout
from etude.tuning.data.rendering import (
    NOTHING_TRAINED,
    TEMPLATE_REFUSED,
    Refusal,
    Rendering,
    is_trained,
    nothing_trained,
    through_last_answer,
)
from etude.tuning.data.schema import Message, Sample

BATCH = 512
"""Samples tokenised in one call; the tokenizer works on the texts of a call in parallel."""

TOO_LONG = "longer than data.max_length"

REASONS = {
    TOO_LONG: "too_long",
    NOTHING_TRAINED: "no_trained_tokens",
    TEMPLATE_REFUSED: "template_refused",
}
"""Reasons to drop a sample, each with the key of `data` that decides."""


class Encoder:
    """Encoder of samples by a model's tokenizer and chat template.

    Conversations follow the chat template; without one, a sample is the prompt, the answer and the
    end token. Plain text is the text and an end token, all of it trained.

    Raises:
        DataError: at construction, if the tokenizer or its template does not support training.
    """

    def __init__(self, tokenizer: Any, spec: DataSpec) -> None:
        self.tokenizer = tokenizer
        self.spec = spec
        self.templated = bool(tokenizer.chat_template)
        self._marker = Marker(tokenizer)
        self._chat = (
            ChatLayout(tokenizer, spec.trained_turns, spec.unsupported_system)
            if self.templated
            else PlainLayout(tokenizer)
        )
        self._plain = PlainLayout(tokenizer) if tokenizer.eos_token_id is not None else None
        self.end_id = self._chat.end_id
        """The token that ends an answer."""
        self.answer_tokens: int | None = None
        """Length of almost all training answers, in tokens; None where it is not known."""

    def encode(self, sample: Sample) -> EncodedSample:
        """Encode one sample.

        Raises:
            DataError: it cannot be trained on, even if the recipe would drop it.
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
        """Encode samples in batches; drop or refuse unsuitable ones as the recipe says.

        Args:
            samples: read as a stream.
            progress: reports each batch; the caller starts and ends it.
            may_be_empty: whether an empty result is allowed.

        Raises:
            DataError: a sample cannot be trained on and the recipe does not drop it, or no sample
                is left.
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
        """Encode like `encode_all`, but pass on each sample instead of storing all.

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
                        raise DataError(f"{sample.origin}: {outcome.message}{_remedy(outcome)}")
                    counts.dropped.setdefault(reason, Tally()).add(sample.origin)
                    continue
                if source is not sample:
                    counts.cut.add(sample.origin)
                if self._layout(sample).folds(sample):
                    counts.folded.add(sample.origin)
                counts.add(
                    [len(side) for side in outcome.sides],
                    sum(side.trained_tokens for side in outcome.sides),
                    outcome.desirable,
                )
                keep(outcome, source)
            progress.advance(len(batch))
        if not counts.lengths and not may_be_empty:
            reasons = "; ".join(f"{reason}: {tally}" for reason, tally in counts.dropped.items())
            raise DataError(f"no training samples are left ({reasons or 'there were none'})")
        return counts.stats()

    def encode_uncut(self, sample: Sample) -> EncodedSample:
        """Encode one sample without a length limit, for inspection.

        Raises:
            DataError: it cannot be trained on at any length.
        """
        outcome = self._encode_batch([sample])[0]
        if isinstance(outcome, Refusal):
            raise DataError(f"{sample.origin}: {outcome.message}")
        return outcome

    def outcomes_uncut(self, samples: Sequence[Sample]) -> list[EncodedSample | Refusal]:
        """Encode samples without a length limit; return a refusal for unsuitable ones."""
        return self._encode_batch(samples)

    def prompt_ids(self, sample: Sample) -> list[int]:
        """Return the token ids of the generation prompt for the last answer of `sample`.

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
        # Calls are compared as rendered by the template.
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
        """Encode a batch, splitting conversations into one sample per answer if needed.

        Such a sample is the conversation up to its answer, as in inference.

        Yields:
            Each sample, its outcome, and the encoded sample.
        """
        for sample, (outcome, source) in zip(batch, self._encode_within_length(batch), strict=True):
            if not isinstance(outcome, Refusal) or not outcome.rewrites or sample.rejected:
                yield sample, outcome, source
                continue
            split.add(sample.origin)
            parts = [
                replace(sample, messages=sample.messages[: place + 1], context=place)
                for place, turn in enumerate(sample.messages)
                if is_trained(turn) and place >= sample.context
            ]
            for part, (own, cut) in zip(parts, self._encode_within_length(parts), strict=True):
                yield part, own, cut

    # Length

    def _reason_to_drop(self, refusal: Refusal) -> str | None:
        """Return the reason to drop a sample, or None if it must stop the run."""
        if refusal.reason is None or getattr(self.spec, REASONS[refusal.reason]) == "error":
            return None
        return refusal.reason

    def _encode_within_length(
        self, samples: Sequence[Sample]
    ) -> list[tuple[EncodedSample | Refusal, Sample]]:
        """Encode, truncating prompts if the recipe says so; also return the truncated sample."""
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
        """Truncate the longest user message on the left until the sample fits, if possible.

        The message is truncated, not the tokens: role headers and system message stay, so training
        sees the same layout as inference. For a pair, it is a message shared by both
        answers.
        """
        shared = sample.messages[: sample.context] if sample.rejected else sample.messages
        places = [place for place, turn in enumerate(shared) if turn.role == "user"]
        if not places:
            return None
        place = max(places, key=lambda place: len(sample.messages[place].content))
        ids = self._marker.tokenize([sample.messages[place].content])[0]
        excess = encoded.longest - self.spec.max_length
        # Truncated text may have more tokens than expected, so repeat.
        while 0 < excess < len(ids):
            ids = ids[excess:]
            # Truncation inside a multi-token character leaves an invalid character.
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
        """Encode samples without a length limit; for pairs, both sides."""
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
        # One call for all: each whole text, and its prefix up to each answer.
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


def _remedy(refusal: Refusal) -> str:
    if refusal.reason != TEMPLATE_REFUSED:
        return ""
    return "; `etude data check` names every such row, data.template_refused: drop leaves them out"


def _joined(sample: Sample, sides: list[EncodedSample | Refusal]) -> EncodedSample | Refusal:
    """Join a sample's encoded sides, or return the refusal of one of them."""
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
    """Return the turns with the content of one replaced."""
    if not turns:
        return ()
    return (*turns[:place], replace(turns[place], content=content), *turns[place + 1 :])
