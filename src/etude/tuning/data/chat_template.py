r"""Chat templates: rendering samples to text, and locating the answers in it.

    <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n
    |------------------- prompt ----------------------------|--answer--|

The start of an answer is not found by searching for a marker's text, which a conversation may
contain itself. It is the end of the *generation prompt*: the conversation up to the answer,
rendered for generation. Training therefore starts where generation will start. Templates for which
that does not hold are refused, as are templates that end answers without an end token, and answers
that contain the end token itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from etude.core.errors import DataError
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.template_probe import TemplateProbe, unsaid, with_thought

NOTHING_TRAINED = "no trained token"


@dataclass(frozen=True, slots=True)
class Rendering:
    """A sample rendered to text."""

    text: str
    answers: list[tuple[int, int]]
    """(start, end) in characters of each answer, including its end token if present."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a sample cannot be encoded."""

    message: str
    reason: str | None = None
    """Reason to count a dropped sample under, if the recipe may drop it."""

    rewrites: bool = False
    """Whether the template renders an earlier answer differently once later turns follow; the
    conversation can then be split into one sample per answer."""


class ChatLayout:
    """Rendering of conversations by the tokenizer's chat template.

    Raises:
        DataError: at construction, if the template does not support training.
    """

    start_ids: tuple[int, ...] = ()
    """Prefix of the text: empty, as templates write the start token themselves."""

    appends_end = False

    def __init__(self, tokenizer: Any, trained_turns: Literal["all", "last"] = "all") -> None:
        self._tokenizer = tokenizer
        self._trained_turns = trained_turns
        self._template = cast("str", tokenizer.get_chat_template())
        self._marked = re.search(r"\{%-?\s*generation\s*-?%\}", self._template) is not None
        self._form = TemplateProbe(self._template, self._apply)
        self._ending, self.end_id = self._probe()
        self._end_text = cast("str", tokenizer.convert_ids_to_tokens(self.end_id))

    def prompt(self, sample: Sample) -> str:
        """Return the generation prompt for the last answer of `sample`."""
        turns = through_last_answer(sample)[:-1]
        return self._render([turns], [sample], for_generation=True)[0]

    def render(self, samples: Sequence[Sample]) -> list[Rendering | Refusal]:
        """Render conversations and locate their answers.

        Each conversation is rendered up to each answer as for generation, and through each answer.
        The two must agree, and the last rendering must contain all others; otherwise the sample is
        refused. Answers marked by `{% generation %}` are used as marked, except for the last one,
        whose start is checked against the generation prompt.
        """
        conversations = [through_last_answer(sample) for sample in samples]
        wanted = [
            self._wanted(sample, turns)
            for sample, turns in zip(samples, conversations, strict=True)
        ]
        before: list[tuple[Message, ...]] = []
        through: list[tuple[Message, ...]] = []
        owners: list[Sample] = []
        for sample, turns, places in zip(samples, conversations, wanted, strict=True):
            for place in places[-1:] if self._marked else places:
                before.append(turns[:place])
                through.append(turns[: place + 1])
                owners.append(sample)
        prompts = iter(self._render(before, owners, for_generation=True))
        answered = iter(self._render(through, owners))
        renderings: list[Rendering | Refusal] = []
        for sample, turns, places in zip(samples, conversations, wanted, strict=True):
            count = min(len(places), 1) if self._marked else len(places)
            spans = [(next(prompts), next(answered)) for _ in range(count)]
            if not places:
                renderings.append(nothing_trained("the conversation has no answer"))
            elif any(turns[place].is_empty for place in places):
                renderings.append(nothing_trained("an answer is empty"))
            elif self._marked:
                renderings.append(self._marked_answers(sample, turns, places, *spans[0]))
            else:
                renderings.append(self._answers(turns, places, spans))
            renderings[-1] = self._unchanged(turns, places, renderings[-1])
        return renderings

    def _wanted(self, sample: Sample, turns: Sequence[Message]) -> list[int]:
        """Return the indices of the trained turns."""
        places = [
            place
            for place, turn in enumerate(turns)
            if turn.role == "assistant" and place >= sample.context
        ]
        return places[-1:] if self._trained_turns == "last" else places

    def _probe(self) -> tuple[str, int]:
        """Return the template's text after an answer through its end token, and the token."""
        answer = "answer"
        turns = (Message("user", "question"), Message("assistant", answer))
        sample = Sample(turns, None, "the model's own template")
        prompt = self._render([turns[:1]], [sample], for_generation=True)[0]
        whole = self._render([turns], [sample])[0]
        if not whole.startswith(prompt):
            raise DataError(_differs(prompt, whole))
        before, found, tail = whole[len(prompt) :].rpartition(answer)
        if not found:
            raise DataError(f"the chat template omits the answer: it renders {before + tail!r}")
        added: dict[int, Any] = self._tokenizer.added_tokens_decoder
        special = set(cast("list[int]", self._tokenizer.all_special_ids))
        special |= {number for number, token in added.items() if token.special}
        ids: list[int] = self._tokenizer(tail, add_special_tokens=False)["input_ids"]
        end_id = next((token for token in ids if token in special), None)
        if end_id is None:
            raise DataError(
                f"the chat template ends an answer with {tail!r}, without an end token; a model "
                "tuned with it would never stop"
            )
        end_text = cast("str", self._tokenizer.convert_ids_to_tokens(end_id))
        return tail[: tail.index(end_text) + len(end_text)], end_id

    def _render(
        self,
        conversations: Sequence[Sequence[Message]],
        samples: Sequence[Sample],
        for_generation: bool = False,
    ) -> list[str]:
        """Render conversations; `samples` identify them in errors of the template."""
        texts: list[str] = []
        for turns, sample in zip(conversations, samples, strict=True):
            if not turns:
                raise DataError(
                    f"{sample.origin}: the conversation begins with its answer; add a "
                    "user message before it"
                )
            try:
                if sample.tools and not self._form.takes_tools:
                    raise DataError(_NO_TOOLS)
                chat = self._form.dicts(turns)
                texts.append(self._apply(chat, list(sample.tools) or None, for_generation))
            # Templates may raise jinja2's errors or any Python exception.
            except Exception as error:
                raise DataError(
                    f"{sample.origin}: the chat template refuses this conversation: {error}"
                ) from None
        return texts

    def _apply(
        self,
        chat: list[dict[str, Any]],
        tools: list[Mapping[str, Any]] | None,
        for_generation: bool = False,
    ) -> str:
        return cast(
            "str",
            self._tokenizer.apply_chat_template(
                chat, tools=tools, tokenize=False, add_generation_prompt=for_generation
            ),
        )

    def _answers(
        self, turns: Sequence[Message], places: Sequence[int], spans: list[tuple[str, str]]
    ) -> Rendering | Refusal:
        """Locate each answer of a conversation from its (prompt, through the answer) renderings."""
        whole = spans[-1][1]
        answers: list[tuple[int, int]] = []
        for place, (prompt, through) in zip(places, spans, strict=True):
            number = _ordinal(turns, place)
            if not whole.startswith(prompt):
                last = place == places[-1]
                return Refusal(_differs(prompt, whole)) if last else _rewrites(number)
            end = through.rfind(self._ending, len(prompt))
            if end < 0:
                return Refusal(f"answer {number} does not end in the end token {self._end_text!r}")
            end += len(self._ending)
            if not whole.startswith(through[:end]):
                return _rewrites(number)
            if whole.find(self._end_text, len(prompt)) != end - len(self._end_text):
                return self._holds_end(number)
            answers.append((len(prompt), end))
        return Rendering(whole, answers)

    def _unchanged(
        self, turns: Sequence[Message], places: Sequence[int], rendering: Rendering | Refusal
    ) -> Rendering | Refusal:
        """Refuse a rendering that omits content of an answer or of a tool's result."""
        if isinstance(rendering, Refusal):
            return rendering
        for place, (start, end) in zip(places, rendering.answers, strict=True):
            answer = rendering.text[start:end]
            if (lost := unsaid(turns[place], answer)) is not None:
                number = _ordinal(turns, place)
                return Refusal(
                    f"the chat template changes answer {number}: {_full(turns[place])!r} becomes "
                    f"{answer[:60]!r}, without {lost[:60]!r}; if that is reasoning, set "
                    "data.reasoning to drop"
                )
        for turn in turns:
            if turn.role == "tool" and unsaid(turn, rendering.text) is not None:
                return Refusal(
                    f"the chat template omits a tool's result, {turn.content[:60]!r}; use a "
                    "model whose template takes tools"
                )
        return rendering

    def _marked_answers(
        self,
        sample: Sample,
        turns: Sequence[Message],
        places: Sequence[int],
        prompt: str,
        whole: str,
    ) -> Rendering | Refusal:
        """Return the answers marked by the template, each through its end token."""
        from transformers.utils.chat_template_utils import (
            render_jinja_template,  # pyright: ignore[reportUnknownVariableType]
        )

        render = cast("Any", render_jinja_template)
        (text,), (marks,) = render(
            [self._form.dicts(turns)],
            chat_template=self._template,
            tools=list(sample.tools) or None,
            return_assistant_tokens_mask=True,
            **self._tokenizer.special_tokens_map,
        )
        if text != whole or not whole.startswith(prompt):
            return Refusal(_differs(prompt, whole))
        # One answer may be marked in several consecutive pieces.
        spans: list[tuple[int, int]] = []
        for start, stop in cast("list[tuple[int, int]]", marks):
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]  # noqa: PLW2901
            spans.append((start, stop))
        answers: list[tuple[int, int]] = []
        for number, (start, stop) in enumerate(spans, start=1):
            # Some templates include the end token in the mark, some do not.
            end = whole.find(self._end_text, start)
            if end < 0 or end > stop + len(self._ending) - len(self._end_text):
                return Refusal(f"answer {number} does not end in the end token {self._end_text!r}")
            if self._end_text in whole[end + len(self._end_text) : stop]:
                return self._holds_end(number)
            answers.append((start, end + len(self._end_text)))
        if not answers:
            return nothing_trained("the chat template marks no answer")
        own = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
        if len(answers) != len(own):
            return Refusal(f"the chat template marks {len(answers)} answers of {len(own)}")
        if answers[-1][0] != len(prompt):
            return Refusal(_differs(prompt, whole[: answers[-1][0]]))
        return Rendering(whole, [answers[own.index(place)] for place in places])

    def _holds_end(self, number: int) -> Refusal:
        return Refusal(
            f"answer {number} contains the end token {self._end_text!r}, which the chat template "
            "writes itself; remove it from the data"
        )


class PlainLayout:
    """Rendering without a template: text, or prompt and answer, with the end token appended.

    Raises:
        DataError: at construction, if the tokenizer has no end token.
    """

    appends_end = True

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end token (eos_token): a model tuned with it would never stop"
            )
        self.end_id = cast("int", tokenizer.eos_token_id)
        self.start_ids = _start_ids(tokenizer)
        self._end_text = cast("str", tokenizer.eos_token)

    def prompt(self, sample: Sample) -> str:
        """Return the generation prompt for the answer of `sample`."""
        turns = through_last_answer(sample)[:-1]
        if len(turns) > 1 or (turns and turns[0].role != "user"):
            raise DataError(
                f"{sample.origin}: this model has no chat template, so it supports a prompt and a "
                "completion only; a system message or several turns need a chat model"
            )
        return turns[0].content if turns else ""

    def render(self, samples: Sequence[Sample]) -> list[Rendering | Refusal]:
        """Render samples; a plain text is an answer as a whole."""
        return [self._layout(sample) for sample in samples]

    def _layout(self, sample: Sample) -> Rendering | Refusal:
        if sample.text is not None:
            return Rendering(sample.text, [(0, len(sample.text))])
        turns = through_last_answer(sample)
        if not turns:
            return nothing_trained("the conversation has no answer")
        last = turns[-1]
        if sample.tools or last.tool_calls:
            return Refusal(f"this model has no chat template, and so no tools; {_TAKE_TOOLS_OUT}")
        prompt, answer = self.prompt(sample), last.content
        if last.reasoning:
            answer = with_thought(last.reasoning, answer)
        if last.is_empty:
            return nothing_trained("the answer is empty")
        if self._end_text in answer:
            return Refusal(
                f"the answer contains the end token {self._end_text!r}, which is appended anyway; "
                "remove it from the data"
            )
        return Rendering(prompt + answer, [(len(prompt), len(prompt) + len(answer))])


def through_last_answer(sample: Sample) -> tuple[Message, ...]:
    """Return the conversation up to its last answer; later turns are not trained."""
    for place in range(len(sample.messages) - 1, -1, -1):
        if sample.messages[place].role == "assistant":
            return sample.messages[: place + 1]
    return ()


def nothing_trained(why: str) -> Refusal:
    """Return the refusal of a sample without trained tokens."""
    return Refusal(
        f"{why}, so nothing would be trained; fix the row, or set data.no_trained_tokens to drop",
        NOTHING_TRAINED,
    )


def _start_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that the tokenizer puts before every text: a start token, or none."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    full: list[int] = tokenizer("a")["input_ids"]
    starts: Iterator[int] = (
        start for start in range(len(full)) if full[start : start + len(bare)] == bare
    )
    return tuple(full[: next(starts, 0)])


_TAKE_TOOLS_OUT = "use a model whose template supports them, or data without tools (data.tools)"
_NO_TOOLS = f"the template ignores tools, so the model would not see them; {_TAKE_TOOLS_OUT}"


def _ordinal(turns: Sequence[Message], place: int) -> int:
    """Return the index of a turn among the conversation's answers, from 1."""
    return sum(turn.role == "assistant" for turn in turns[: place + 1])


def _full(turn: Message) -> str:
    """Return the beginning of an answer's reasoning, content and calls."""
    calls = [f"{call.name}({dict(call.arguments)})" for call in turn.tool_calls]
    return " ".join(filter(None, [turn.reasoning, turn.content, *calls]))[:60]


def _rewrites(number: int) -> Refusal:
    return Refusal(
        f"the chat template renders answer {number} differently once a later turn follows it; "
        "split the conversation, one row per answer, or set data.trained_turns to last",
        rewrites=True,
    )


def _differs(prompt: str, whole: str) -> str:
    """Describe where the generation prompt and the training text differ."""
    place = next(
        (at for at, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
        min(len(prompt), len(whole)),
    )
    return (
        "the chat template differs between training and generation: after "
        f"{prompt[max(0, place - 30) : place]!r} generation has {prompt[place : place + 30]!r}, "
        f"training {whole[place : place + 30]!r}; use a template whose generation prompt is the "
        "text before its answers"
    )
