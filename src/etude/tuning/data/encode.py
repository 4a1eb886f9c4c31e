r"""From samples to tokens, and which of them are trained.

    <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n
    ·············· context ································ TTTTTTTTTT  ··

Only what the model itself would write is trained: each answer and the token that ends it,
neither the role headers before it nor the template's text after it. Where an answer starts is
not searched for by a marker's text. It is where the *generation prompt* ends: the conversation
up to the answer, rendered as for generation. So what is trained always begins where generation
will begin, and a template for which that does not hold is refused, as are a template without an
end token, a doubled start token and an answer that holds the end token. Models without a chat
template get the prompt, the answer and the end token, plain text the text and the end token.

`trained[t]` says that token t is a target: that the model learns to predict it from tokens
before t. The first token has none before it, so it is never trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from etude.errors import DataError
from etude.tuning.data.schema import Message, Sample
from etude.tuning.recipe import DataSpec

BATCH = 512
"""Samples rendered and tokenised in one call; the tokenizer works on a call's texts in parallel."""

TOO_LONG = "longer than data.max_length"
NOTHING_TRAINED = "no trained token"


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSample:
    """The tokens of one sample."""

    input_ids: NDArray[np.int32]
    """(T,)"""

    trained: NDArray[np.bool_]
    """(T,) whether token t is a target; `trained[0]` is False."""

    origin: str

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def trained_tokens(self) -> int:
        """How many tokens are targets."""
        return int(self.trained.sum())


@dataclass
class Left:
    """Samples left out for one reason."""

    count: int = 0
    first: list[str] = field(default_factory=list[str])
    """Where the first few are."""

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

    dropped: dict[str, Left]
    """By reason."""

    cut: Left
    """Samples whose prompt was shortened from the left."""

    histogram: list[tuple[int, int, int]]
    """Lengths as (from, up to and including, samples)."""


@dataclass(frozen=True)
class EncodedSet:
    """The samples kept, in order."""

    samples: list[EncodedSample]
    sources: list[Sample]
    """The samples that `samples` were made of (prompts cut where they had to be)."""

    stats: EncodingStats

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        return [len(sample) for sample in self.samples]


@dataclass(frozen=True, slots=True)
class _Rendering:
    """A sample as text: `answers[i]` is (start, end) in characters, end token included."""

    text: str
    answers: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a sample cannot be encoded; `reason` where the recipe may have it left out instead."""

    message: str
    reason: str | None = None


class Encoder:
    """Turns samples into tokens as one model's tokenizer and chat template say.

    Raises:
        DataError: at construction, if the template or tokenizer cannot be trained with.
    """

    def __init__(self, tokenizer: Any, spec: DataSpec) -> None:
        self.tokenizer = tokenizer
        self.spec = spec
        self.templated = bool(tokenizer.chat_template)
        self._start_ids = self._find_start_ids()
        if self.templated:
            self._tail, self.end_id = self._probe_template()
        else:
            if tokenizer.eos_token_id is None:
                raise DataError(
                    "the tokenizer has neither a chat template nor an end token: a model tuned "
                    "with it would never stop"
                )
            self._tail, self.end_id = "", cast("int", tokenizer.eos_token_id)
        self._end_text = cast("str", tokenizer.convert_ids_to_tokens(self.end_id))

    # What a run asks for

    def encode(self, sample: Sample) -> EncodedSample:
        """Encode one sample.

        Raises:
            DataError: it cannot be trained on; also if the recipe says to leave such ones out.
        """
        outcome, _ = self._encode_within_length([sample])[0]
        if isinstance(outcome, _Refusal):
            raise DataError(f"{sample.origin}: {outcome.message}")
        return outcome

    def encode_all(self, samples: Iterable[Sample]) -> EncodedSet:
        """Encode samples in batches; leave out or refuse as the recipe says.

        Raises:
            DataError: a sample cannot be trained on and the recipe does not say to leave it
                out, or none is left.
        """
        kept: list[EncodedSample] = []
        sources: list[Sample] = []
        dropped: dict[str, Left] = {}
        cut = Left()
        stream = iter(samples)
        while batch := list(islice(stream, BATCH)):
            outcomes = self._encode_within_length(batch)
            for sample, (outcome, source) in zip(batch, outcomes, strict=True):
                if isinstance(outcome, _Refusal):
                    if not self._may_drop(outcome):
                        raise DataError(f"{sample.origin}: {outcome.message}")
                    dropped.setdefault(cast("str", outcome.reason), Left()).add(sample.origin)
                    continue
                if source is not sample:
                    cut.add(sample.origin)
                kept.append(outcome)
                sources.append(source)
        if not kept:
            reasons = "; ".join(f"{reason}: {left}" for reason, left in dropped.items())
            raise DataError(f"no sample is left to train on ({reasons or 'there were none'})")
        return EncodedSet(kept, sources, _stats(kept, dropped, cut))

    def prompt_ids(self, sample: Sample) -> list[int]:
        """Return the tokens that the model is given to generate the last answer of `sample`."""
        if sample.text is not None:
            raise DataError(f"{sample.origin}: plain text has no prompt to answer")
        turns = _through_last_answer(sample)
        if not turns:
            raise DataError(f"{sample.origin}: the conversation has no answer")
        if not self.templated:
            return [*self._start_ids, *self._tokenize([self._joined(turns[:-1], sample)])[0]]
        return self._tokenize(self._render([turns[:-1]], [sample], for_generation=True))[0]

    def reference(self, sample: Sample) -> str:
        """Return the last answer of `sample`, or an empty string."""
        turns = _through_last_answer(sample)
        return turns[-1].content if turns else ""

    # The template, examined once

    def _find_start_ids(self) -> list[int]:
        """Return what the tokenizer puts before every text (a start token, or nothing)."""
        plain: list[int] = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        full: list[int] = self.tokenizer("a")["input_ids"]
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return full[:start]
        return []

    def _probe_template(self) -> tuple[str, int]:
        """Learn what the template writes after an answer, and which token of that ends it."""
        answer = "answer"
        turns = (Message("user", "question"), Message("assistant", answer))
        sample = Sample(turns, None, "the chat template")
        prompt = self._render([turns[:1]], [sample], for_generation=True)[0]
        whole = self._render([turns], [sample])[0]
        if not whole.startswith(prompt):
            raise DataError(_differs(prompt, whole))
        before, found, tail = whole[len(prompt) :].rpartition(answer)
        if not found:
            raise DataError(f"the chat template leaves the answer out: it renders {before!r}")
        added: dict[int, Any] = self.tokenizer.added_tokens_decoder
        special = set(cast("list[int]", self.tokenizer.all_special_ids))
        special |= {number for number, token in added.items() if token.special}
        end_id = next((token for token in self._tokenize([tail])[0] if token in special), None)
        if end_id is None:
            raise DataError(
                f"the chat template ends an answer with {tail!r}, which holds no end token: a "
                "model tuned with it would never stop"
            )
        end_text = cast("str", self.tokenizer.convert_ids_to_tokens(end_id))
        return tail[: tail.index(end_text) + len(end_text)], end_id

    # Rendering: text, and where the answers are

    def _render(
        self,
        conversations: Sequence[Sequence[Message]],
        samples: Sequence[Sample],
        for_generation: bool = False,
    ) -> list[str]:
        """Render conversations; `samples` say whose they are, should the template refuse one."""
        chats = [[turn.as_dict() for turn in turns] for turns in conversations]
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": for_generation}
        if not chats:
            return []
        try:
            return cast("list[str]", self.tokenizer.apply_chat_template(chats, **options))
        # Templates raise what they like (jinja2's errors, or Python's from inside them).
        except Exception:
            for chat, sample in zip(chats, samples, strict=True):
                try:
                    self.tokenizer.apply_chat_template(chat, **options)
                except Exception as error:
                    raise DataError(
                        f"{sample.origin}: the chat template refuses this conversation: {error}"
                    ) from None
            raise

    def _joined(self, turns: Sequence[Message], sample: Sample) -> str:
        """Return the prompt for a model without a chat template."""
        if len(turns) > 1 or (turns and turns[0].role != "user"):
            raise DataError(
                f"{sample.origin}: this model has no chat template, so it takes a prompt and a "
                "completion; system messages and several turns need a chat model"
            )
        return turns[0].content if turns else ""

    def _render_plain(self, sample: Sample) -> _Rendering | _Refusal:
        """Lay out a sample without a template; the end token is appended as an id later."""
        if sample.text is not None:
            return _Rendering(sample.text, [(0, len(sample.text))])
        turns = _through_last_answer(sample)
        if not turns:
            return _nothing_trained("the conversation has no answer")
        prompt = self._joined(turns[:-1], sample)
        answer = turns[-1].content
        if not answer:
            return _nothing_trained("the answer is empty")
        if self._end_text in answer:
            return _Refusal(
                f"the answer holds the end token {self._end_text!r}, which Etude appends itself; "
                "take it out of the data"
            )
        return _Rendering(prompt + answer, [(len(prompt), len(prompt) + len(answer))])

    def _render_chats(self, samples: Sequence[Sample]) -> list[_Rendering | _Refusal]:
        """Render conversations and find their answers.

        Each is rendered whole, up to each answer as for generation, and through each answer.
        The three agree, or the sample is refused.
        """
        turns = [_through_last_answer(sample) for sample in samples]
        before: list[tuple[Message, ...]] = []
        through: list[tuple[Message, ...]] = []
        owners: list[Sample] = []
        for sample, conversation in zip(samples, turns, strict=True):
            for place, turn in enumerate(conversation):
                if turn.role == "assistant":
                    before.append(conversation[:place])
                    through.append(conversation[: place + 1])
                    owners.append(sample)
        prompts = iter(self._render(before, owners, for_generation=True))
        answered = iter(self._render(through, owners))
        renderings: list[_Rendering | _Refusal] = []
        for conversation in turns:
            answers = [turn for turn in conversation if turn.role == "assistant"]
            spans = [(next(prompts), next(answered)) for _ in answers]
            if not answers:
                renderings.append(_nothing_trained("the conversation has no answer"))
            elif not all(turn.content.strip() for turn in answers):
                renderings.append(_nothing_trained("an answer is empty"))
            else:
                renderings.append(self._answers(spans))
        return renderings

    def _answers(self, spans: list[tuple[str, str]]) -> _Rendering | _Refusal:
        """Find each answer of one conversation from its (prompt, through the answer) renderings."""
        whole = spans[-1][1]
        answers: list[tuple[int, int]] = []
        for number, (prompt, through) in enumerate(spans, start=1):
            if not whole.startswith(prompt):
                if number < len(spans):
                    return _Refusal(
                        f"the chat template rewrites earlier turns once a later one follows "
                        f"(answer {number}); split the conversation, one row an answer"
                    )
                return _Refusal(_differs(prompt, whole))
            end = through.rfind(self._tail)
            if end < len(prompt):
                return _Refusal(f"answer {number} does not end in the end token {self._end_text!r}")
            end += len(self._tail)
            if not whole.startswith(through[:end]):
                return _Refusal(
                    f"the chat template rewrites earlier answers once a later one follows "
                    f"(answer {number}); split the conversation, one row an answer"
                )
            if whole.find(self._end_text, len(prompt)) != end - len(self._end_text):
                return _Refusal(
                    f"answer {number} holds the end token {self._end_text!r}, which the chat "
                    "template writes itself; take it out of the data"
                )
            answers.append((len(prompt), end))
        return _Rendering(whole, answers)

    # Tokens

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return cast("list[list[int]]", encoded["input_ids"])

    def _encode_within_length(
        self, samples: Sequence[Sample]
    ) -> list[tuple[EncodedSample | _Refusal, Sample]]:
        """Encode, cutting prompts where the recipe says so; return the sample encoded as well."""
        outcomes: list[tuple[EncodedSample | _Refusal, Sample]] = []
        for sample, encoded in zip(samples, self._encode_batch(samples), strict=True):
            source: Sample | None = sample
            outcome = encoded
            if isinstance(encoded, EncodedSample) and len(encoded) > self.spec.max_length:
                outcome = _Refusal(
                    f"{len(encoded):,} tokens, more than data.max_length "
                    f"({self.spec.max_length:,}); raise it, or set data.too_long to drop or "
                    "cut_prompt",
                    TOO_LONG,
                )
                if self.spec.too_long == "cut_prompt":
                    outcome, source = self._cut_prompt(sample, encoded, outcome)
            outcomes.append((outcome, source))
        return outcomes

    def _may_drop(self, refusal: _Refusal) -> bool:
        if refusal.reason == TOO_LONG:
            return self.spec.too_long != "error"
        return refusal.reason is not None and self.spec.no_trained_tokens == "drop"

    def _cut_prompt(
        self, sample: Sample, encoded: EncodedSample, too_long: _Refusal
    ) -> tuple[EncodedSample | _Refusal, Sample]:
        """Shorten the longest user message from the left until the sample fits.

        The message is cut, not the tokens of the whole: role headers and system message stay,
        so the model sees in training the layout that it will see in use.
        """
        places = [place for place, turn in enumerate(sample.messages) if turn.role == "user"]
        if not places:
            return too_long, sample
        place = max(places, key=lambda place: len(sample.messages[place].content))
        ids = self._tokenize([sample.messages[place].content])[0]
        excess = len(encoded) - self.spec.max_length
        while excess > 0:
            ids = ids[excess:]
            if not ids:
                return too_long, sample
            # A cut within a character of several tokens leaves a piece that is no character.
            content = cast("str", self.tokenizer.decode(ids)).lstrip("\ufffd")
            turns = list(sample.messages)
            turns[place] = Message("user", content)
            shorter = Sample(tuple(turns), None, sample.origin)
            outcome = self._encode_batch([shorter])[0]
            if isinstance(outcome, _Refusal):
                return outcome, sample
            excess = len(outcome) - self.spec.max_length
            if excess <= 0:
                return outcome, shorter
        return too_long, sample

    def _encode_batch(self, samples: Sequence[Sample]) -> list[EncodedSample | _Refusal]:
        """Render and tokenise samples, each in full, whatever its length."""
        chats = [sample for sample in samples if self.templated and sample.text is None]
        rendered = iter(self._render_chats(chats))
        renderings = [
            next(rendered) if self.templated and sample.text is None else self._render_plain(sample)
            for sample in samples
        ]
        texts: list[str] = []
        for rendering in renderings:
            if isinstance(rendering, _Rendering):
                texts.append(rendering.text)
                texts.extend(rendering.text[:start] for start, _ in rendering.answers if start)
        tokens = iter(self._tokenize(texts))
        outcomes: list[EncodedSample | _Refusal] = []
        for sample, rendering in zip(samples, renderings, strict=True):
            if isinstance(rendering, _Refusal):
                outcomes.append(rendering)
                continue
            whole = next(tokens)
            prompts = [next(tokens) if start else [] for start, _ in rendering.answers]
            outcomes.append(self._trained(sample, rendering, whole, prompts))
        return outcomes

    def _trained(
        self, sample: Sample, rendering: _Rendering, ids: list[int], prompts: list[list[int]]
    ) -> EncodedSample | _Refusal:
        """Mark the trained tokens of a tokenised rendering."""
        if any(ids[: len(prompt)] != prompt for prompt in prompts):
            spliced = self._spliced(rendering, prompts)
            if self.tokenizer.decode(spliced) != self.tokenizer.decode(ids):
                return _Refusal(
                    "the tokens of the prompt change with the answer that follows; begin the "
                    "answer with something other than white space"
                )
            ids = spliced
        plain = sample.text is not None or not self.templated
        if plain:
            offset = len(self._start_ids)
            # A text may bring its end token along; an answer that does was refused before.
            ids = [*self._start_ids, *ids, *([] if ids[-1:] == [self.end_id] else [self.end_id])]
            trained = np.zeros(len(ids), dtype=np.bool_)
            trained[offset + len(prompts[0]) :] = True
        else:
            trained = np.zeros(len(ids), dtype=np.bool_)
            for prompt in prompts:
                trained[len(prompt) : ids.index(self.end_id, len(prompt)) + 1] = True
        start = self.tokenizer.bos_token_id
        if len(ids) > 1 and start is not None and ids[0] == ids[1] == start:
            text = self.tokenizer.convert_ids_to_tokens(start)
            return _Refusal(f"the start token {text!r} stands twice; take it out of the data")
        trained[:1] = False
        if not trained.any():
            return _nothing_trained("the text is shorter than two tokens")
        return EncodedSample(np.array(ids, dtype=np.int32), trained, sample.origin)

    def _spliced(self, rendering: _Rendering, prompts: list[list[int]]) -> list[int]:
        """Tokenise so that every answer starts on a token of its own.

        Where an answer begins with white space, the tokenizer may draw it into the prompt's
        last token. In use the prompt is tokenised alone; so it must be here.
        """
        starts = [0, *(start for start, _ in rendering.answers), len(rendering.text)]
        pieces = [rendering.text[a:b] for a, b in pairwise(starts[1:])]
        ids = list(prompts[0])
        for piece in self._tokenize(pieces):
            ids += piece
        return ids


def _through_last_answer(sample: Sample) -> tuple[Message, ...]:
    """Return the conversation without what follows its last answer: nothing can learn from it."""
    for place in range(len(sample.messages) - 1, -1, -1):
        if sample.messages[place].role == "assistant":
            return sample.messages[: place + 1]
    return ()


def _nothing_trained(why: str) -> _Refusal:
    return _Refusal(
        f"{why}, so nothing would be trained; mend the row, or set data.no_trained_tokens to drop",
        NOTHING_TRAINED,
    )


def _differs(prompt: str, whole: str) -> str:
    """Say where the generation prompt and the training text part."""
    place = next(
        (at for at, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
        min(len(prompt), len(whole)),
    )
    return (
        "the chat template differs between training and generation: "
        f"generation goes on with {prompt[place : place + 40]!r}, training with "
        f"{whole[place : place + 40]!r}; tune with a template whose generation prompt begins the "
        "answer"
    )


def _stats(kept: list[EncodedSample], dropped: dict[str, Left], cut: Left) -> EncodingStats:
    lengths = np.array([len(sample) for sample in kept])
    return EncodingStats(
        samples=len(kept),
        tokens=int(lengths.sum()),
        trained_tokens=sum(sample.trained_tokens for sample in kept),
        longest=int(lengths.max()),
        dropped=dropped,
        cut=cut,
        histogram=histogram(lengths.tolist()),
    )


def histogram(lengths: Sequence[int], bars: int = 12) -> list[tuple[int, int, int]]:
    """Count lengths in at most `bars` ranges of one round width: (from, to inclusive, count)."""
    longest = max(lengths)
    width = next(
        step * 10**power
        for power in range(10)
        for step in (1, 2, 5)
        if step * 10**power * bars >= longest
    )
    counts = np.bincount((np.asarray(lengths) - 1) // width, minlength=1)
    return [
        (place * width + 1, (place + 1) * width, int(count)) for place, count in enumerate(counts)
    ]
