r"""Chat templates: rendering samples to text, and locating the answers in it.

    <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n
    |------------------- prompt ----------------------------|--answer--|

The start of an answer is not found by searching for a marker's text, which a conversation may
contain itself. It is the end of the *generation prompt*: the conversation up to the answer,
rendered for generation. Training therefore starts where generation will start. Templates for which
that does not hold are refused, as are templates that end answers without an end token, answers that
contain the end token itself, and renderings without some of what a conversation says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from etude.core.errors import DataError
from etude.tuning.data.plain_layout import TAKE_TOOLS_OUT
from etude.tuning.data.rendering import (
    TEMPLATE_REFUSED,
    Refusal,
    Rendering,
    is_trained,
    nothing_trained,
    through_last_answer,
)
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.template_probe import TemplateProbe, omitted, unsaid


class ChatLayout:
    """Rendering of conversations by the tokenizer's chat template.

    Raises:
        DataError: at construction, if the template does not support training.
    """

    start_ids: tuple[int, ...] = ()
    """Prefix of the text: empty, as templates write the start token themselves."""

    appends_end = False

    def __init__(
        self,
        tokenizer: Any,
        trained_turns: Literal["all", "last"] = "all",
        unsupported_system: Literal["auto", "fold", "error"] = "auto",
    ) -> None:
        self._tokenizer = tokenizer
        self._trained_turns = trained_turns
        self._unsupported_system = unsupported_system
        self._template = cast("str", tokenizer.get_chat_template())
        self._marked = re.search(r"\{%-?\s*generation\s*-?%\}", self._template) is not None
        self._form = TemplateProbe(self._template, self._apply)
        self._ending, self.end_id = self._probe()
        self._end_text = cast("str", tokenizer.convert_ids_to_tokens(self.end_id))

    def prompt(self, sample: Sample) -> str:
        """Return the generation prompt for the last answer of `sample`.

        Raises:
            DataError: the template refuses the conversation.
        """
        folded = self._folded(sample)
        turns = through_last_answer(folded)[:-1]
        rendered = self._render(turns, folded, for_generation=True)
        if isinstance(rendered, Refusal):
            raise DataError(f"{sample.origin}: {rendered.message}")
        return rendered

    def render(self, samples: Sequence[Sample]) -> list[Rendering | Refusal]:
        """Render conversations and locate their answers.

        Each conversation is rendered up to each answer as for generation, and through each answer.
        The two must agree, and the last rendering must contain all others and all that the turns
        say; otherwise the sample is refused. Answers marked by `{% generation %}` are used as
        marked, except for the last one, whose start is checked against the generation prompt.
        """
        return [self._rendering(self._folded(sample)) for sample in samples]

    def _rendering(self, sample: Sample) -> Rendering | Refusal:
        turns = through_last_answer(sample)
        places = self._wanted(sample, turns)
        if not places:
            return nothing_trained("the conversation has no answer that is trained")
        spans: list[tuple[str, str]] = []
        for place in places[-1:] if self._marked else places:
            prompt = self._render(turns[:place], sample, for_generation=True)
            through = self._render(turns[: place + 1], sample)
            for rendered in (prompt, through):
                if isinstance(rendered, Refusal):
                    return rendered
            spans.append((cast("str", prompt), cast("str", through)))
        if any(turns[place].is_empty for place in places):
            return nothing_trained("an answer is empty")
        if self._marked:
            rendering = self._marked_answers(sample, turns, places, *spans[0])
        else:
            rendering = self._answers(turns, places, spans)
        return self._unchanged(turns, places, rendering)

    def folds(self, sample: Sample) -> bool:
        """Whether the system message of `sample` becomes part of the user's first turn."""
        if [turn.role for turn in sample.messages[:2]] != ["system", "user"]:
            return False
        if self._unsupported_system == "error" or self._form.system == "rendered":
            return False
        return self._form.system == "refused" or self._unsupported_system == "fold"

    def _folded(self, sample: Sample) -> Sample:
        """Return a sample as the template takes it; Gemma's users fold system messages so, too."""
        if not self.folds(sample):
            return sample
        system, user, *rest = sample.messages
        first = replace(user, content=f"{system.content}\n\n{user.content}")
        return replace(sample, messages=(first, *rest), context=max(sample.context - 1, 0))

    def _wanted(self, sample: Sample, turns: Sequence[Message]) -> list[int]:
        """Return the indices of the trained turns."""
        places = [
            place
            for place, turn in enumerate(turns)
            if is_trained(turn) and place >= sample.context
        ]
        return places[-1:] if self._trained_turns == "last" else places

    def _probe(self) -> tuple[str, int]:
        """Return the template's text after an answer through its end token, and the token."""
        answer = "answer"
        turns = (Message("user", "question"), Message("assistant", answer))
        sample = Sample(turns, None, "the model's own template")
        rendered = self._render(turns[:1], sample, for_generation=True), self._render(turns, sample)
        for text in rendered:
            if isinstance(text, Refusal):
                raise DataError(f"{sample.origin}: {text.message}")
        prompt, whole = cast("tuple[str, str]", rendered)
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
        self, turns: Sequence[Message], sample: Sample, for_generation: bool = False
    ) -> str | Refusal:
        """Render the turns of `sample`, all of them or the first ones."""
        if not turns:
            return Refusal(
                "the conversation begins with its answer; add a user message before it",
                TEMPLATE_REFUSED,
            )
        try:
            if sample.tools and not self._form.takes_tools:
                raise DataError(_NO_TOOLS)
            chat = self._form.dicts(turns)
            return self._apply(chat, list(sample.tools) or None, for_generation)
        # Templates may raise jinja2's errors or any Python exception.
        except Exception as error:
            return Refusal(
                f"the chat template refuses this conversation: {' '.join(str(error).split())}",
                TEMPLATE_REFUSED,
            )

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
        """Refuse a rendering that omits content of a turn."""
        if isinstance(rendering, Refusal):
            return rendering
        for place, (start, end) in zip(places, rendering.answers, strict=True):
            answer = rendering.text[start:end]
            if (lost := unsaid(turns[place], answer)) is not None:
                number = _ordinal(turns, place)
                return Refusal(
                    f"the chat template changes answer {number}: {_full(turns[place])!r} becomes "
                    f"{answer[:60]!r}, without {lost[:60]!r}; if that is reasoning, set "
                    "data.reasoning to drop",
                    TEMPLATE_REFUSED,
                )
        lost_turn = omitted(turns[: places[-1] + 1], rendering.text)
        return rendering if lost_turn is None else _omits(lost_turn)

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


_NO_TOOLS = f"the template ignores tools, so the model would not see them; {TAKE_TOOLS_OUT}"


def _ordinal(turns: Sequence[Message], place: int) -> int:
    """Return the index of a turn among the conversation's answers, from 1."""
    return sum(turn.role == "assistant" for turn in turns[: place + 1])


def _full(turn: Message) -> str:
    """Return the beginning of an answer's reasoning, content and calls."""
    calls = [f"{call.name}({dict(call.arguments)})" for call in turn.tool_calls]
    return " ".join(filter(None, [turn.reasoning, turn.content, *calls]))[:60]


def _omits(turn: Message) -> Refusal:
    what, remedy = {
        "system": (
            "the system message",
            "use a model whose template takes one, or set data.unsupported_system to fold",
        ),
        "user": ("a message of the user", "use a model whose template takes all messages"),
        "assistant": ("an earlier answer", "use a model whose template takes all messages"),
        "tool": ("a tool's result", "use a model whose template takes tools"),
    }[turn.role]
    return Refusal(
        f"the chat template omits {what}, {turn.content[:60]!r}; {remedy}", TEMPLATE_REFUSED
    )


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
