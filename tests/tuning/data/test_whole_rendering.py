"""Every message of a conversation is in its rendering, or the row is refused; and only that row."""

from __future__ import annotations

from typing import Any

import pytest

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.check.findings import Entry
from etude.tuning.data.check.tokens import Tokens
from etude.tuning.data.encode import Encoder
from etude.tuning.data.rendering import TEMPLATE_REFUSED
from etude.tuning.data.schema import Message, Sample
from etude.tuning.data.template_probe import omitted

TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
SWALLOWS = (
    "{% for m in messages %}{% if m.role != 'system' %}" + TURN + "{% endif %}{% endfor %}" + END
)
REFUSES = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% elif (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}"
    "{% endif %}" + TURN + "{% endfor %}" + END
)
FROM_LAST_QUESTION = (
    "{% set from = namespace(at=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set from.at = loop.index0 %}{% endif %}{% endfor %}{% for m in messages[from.at:] %}"
    + TURN + "{% endfor %}" + END
)  # fmt: skip
# As Mistral's first templates do.
INTO_LAST = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'user' and loop.index0 >= (messages | length) - 2 %}{{ system }} {% endif %}"
    "{{ m.content | trim }}<|im_end|>\n{% endif %}{% endfor %}" + END
)


def talk(*contents: str, system: str | None = None, number: int = 1) -> Sample:
    """Make a conversation of alternating user and assistant messages."""
    turns: list[Any] = [] if system is None else [("system", system)]
    turns += [(("user", "assistant")[n % 2], content) for n, content in enumerate(contents)]
    return Sample.conversation(*turns, origin=f"rows.jsonl:{number}")


def spec(**fields: Any) -> DataSpec:
    return DataSpec(train="x", **fields)


def test_a_system_message_that_the_template_leaves_out_is_refused(templated):
    encoder = Encoder(templated(SWALLOWS), spec())
    sample = talk("Good morning?", "Salve.", system="Answer in Latin only.")
    with pytest.raises(
        DataError, match=r"omits the system message, 'Answer in Latin only\.'.*fold"
    ):
        encoder.encode(sample)
    assert encoder.encode(talk("Good morning?", "Salve.")).trained.any()


@pytest.mark.parametrize("system", ["Salve.", "Good", "morning? S"])
def test_a_message_is_not_said_because_another_contains_its_text(templated, system):
    with pytest.raises(DataError, match="omits the system message"):
        Encoder(templated(SWALLOWS), spec()).encode(
            talk("Good morning? Say salve.", "Salve.", system=system)
        )


def test_earlier_messages_that_the_template_leaves_out_are_refused(templated):
    encoder = Encoder(templated(FROM_LAST_QUESTION), spec(trained_turns="last"))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*omits a message of the user, 'first'"):
        encoder.encode(talk("first", "one", "second", "two"))


def test_a_template_may_move_messages(templated):
    tokenizer = templated(INTO_LAST)
    encoded = Encoder(tokenizer, spec()).encode(talk(" a question\n", "b", system="Be brief."))
    assert "user\nBe brief. a question<" in tokenizer.decode(encoded.input_ids.tolist())


def test_what_is_omitted_is_found_in_escaped_and_moved_texts():
    turns = (
        Message("system", "Be brief."),
        Message("user", 'Say "é".'),
        Message("assistant", "<think>hm</think>ok"),
        Message("tool", '{"a": "é"}'),
    )
    assert omitted(turns, 'Say "é".\nBe brief.\nok {\\"a\\": \\"\\u00e9\\"}') is None
    assert omitted(turns, 'Say "é".\nok {"a": "é"}') == turns[0]
    assert omitted(turns, 'Be brief. ok {"a": "é"}') == turns[1]
    assert omitted(turns, 'Be brief. Say "é". {"a": "é"}') == turns[2]
    assert omitted(turns, 'Be brief. Say "é". ok') == turns[3]


# Templates without a system role


def test_a_system_message_that_the_template_refuses_goes_into_the_users_first_turn(templated):
    tokenizer = templated(REFUSES)
    encoder = Encoder(tokenizer, spec())
    sample = talk("Good day?", "Salve.", "And night?", "Vale.", system="Latin only.")
    done = encoder.encode_all([talk("x", "y", number=2), sample])
    by_hand = encoder.encode(talk("Latin only.\n\nGood day?", "Salve.", "And night?", "Vale."))
    assert done.samples[1].input_ids.tolist() == by_hand.input_ids.tolist()
    assert done.samples[1].trained.tolist() == by_hand.trained.tolist()
    assert str(done.stats.folded) == "1 (rows.jsonl:1)"
    # What is generated is asked for in the same way.
    prompt = tokenizer.decode(encoder.prompt_ids(sample))
    assert prompt.startswith("<|im_start|>user\nLatin only.\n\nGood day?<|im_end|>")


def test_a_pair_is_folded_on_both_sides(templated):
    tokenizer = templated(REFUSES)
    shared = (Message("system", "Latin only."), Message("user", "Good day?"))
    pair = Sample(
        (*shared, Message("assistant", "Salve.")),
        None,
        "rows.jsonl:1",
        rejected=(*shared, Message("assistant", "Hello.")),
        context=2,
    )
    encoded = Encoder(tokenizer, spec()).encode(pair)
    texts = [tokenizer.decode(side.input_ids.tolist()) for side in encoded.sides]
    assert all("user\nLatin only.\n\nGood day?" in text for text in texts)
    learnt = [tokenizer.decode(side.input_ids[side.trained].tolist()) for side in encoded.sides]
    assert learnt == ["Salve.<|im_end|>", "Hello.<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "choice", "folded"),
    [
        (REFUSES, "auto", True),
        (REFUSES, "fold", True),
        (REFUSES, "error", False),
        (SWALLOWS, "auto", False),
        (SWALLOWS, "fold", True),
        (SWALLOWS, "error", False),
        (INTO_LAST, "fold", False),
    ],
)
def test_folding_is_a_choice(templated, template, choice, folded):
    encoder = Encoder(templated(template), spec(unsupported_system=choice))
    sample = talk("Good day?", "Salve.", system="Latin only.")
    if folded or template is INTO_LAST:
        assert encoder.encode_all([sample]).stats.folded.count == int(folded)
        return
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the chat template (refuses|omits)"):
        encoder.encode_all([sample])


# One row is one row


def mixed(bad: set[int], count: int = 700) -> list[Sample]:
    """Make rows over more than one batch, some of them not in turns."""
    return [
        Sample.conversation(
            ("user", "a"), ("user" if n in bad else "assistant", "b"), ("assistant", "c"),
            origin=f"rows.jsonl:{n}",
        )
        if n in bad
        else talk(f"question {n}", "answer", number=n)
        for n in range(1, count + 1)
    ]  # fmt: skip


def test_a_row_that_the_template_refuses_is_named_and_may_be_left_out(templated):
    samples = mixed({2, 300, 511, 699})
    tokenizer = templated(REFUSES)
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*must alternate.*template_refused: drop"):
        Encoder(tokenizer, spec()).encode_all(samples)
    done = Encoder(tokenizer, spec(template_refused="drop")).encode_all(samples)
    assert done.stats.samples == 696
    assert str(done.stats.dropped[TEMPLATE_REFUSED]) == (
        "4 (rows.jsonl:2, rows.jsonl:300, rows.jsonl:511, ...)"
    )


def test_the_check_names_every_row_that_the_template_refuses(templated):
    bad = {2, 300, 511, 699}
    check = Tokens(templated(REFUSES), spec())
    for sample in mixed(bad):
        check.see(Entry(sample, "train", None))
    (found,) = [finding for finding in check.findings() if finding.check == "not-trainable"]
    assert found.rows == [f"rows.jsonl:{n}" for n in sorted(bad)]


def test_without_a_template_one_row_of_several_turns_is_one_row(templated):
    tokenizer = templated(None)
    samples = [talk("a", "b"), talk("a", "b", "c", "d", number=2), talk("e", "f", number=3)]
    done = Encoder(tokenizer, spec(template_refused="drop")).encode_all(samples)
    assert [sample.origin for sample in done.samples] == ["rows.jsonl:1", "rows.jsonl:3"]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: this model has no chat template"):
        Encoder(tokenizer, spec()).encode_all(samples)
