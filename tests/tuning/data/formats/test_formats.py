"""The registry of data formats: `auto`, and what happens when a format is added."""

from __future__ import annotations

import pytest

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.formats import registry
from etude.tuning.data.formats.registry import FORMATS, DataFormat, FirstRow, sample_reader
from etude.tuning.data.schema import Sample
from etude.tuning.data.sources.registry import Row

ANSWERED = {"prompt": "q", "completion": "a"}
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def recognized(values, **fields) -> str:
    """Name the format that `auto` takes for rows like this one."""
    first = FirstRow.of(Row("a.jsonl:1", values), DataSpec(**fields))
    claims = {name: FORMATS[name].recognize(first) for name in FORMATS}
    return min((priority, name) for name, priority in claims.items() if priority is not None)[1]


@pytest.mark.parametrize(
    ("values", "fields", "expected"),
    [
        ({"messages": TURNS}, {}, "messages"),
        ({"messages": TURNS, "text": "x"}, {"text": "text"}, "messages"),
        ({"conversation": []}, {}, "sharegpt"),
        ({"instruction": "", "output": "", "text": ""}, {}, "alpaca"),
        (ANSWERED, {}, "prompt_completion"),
        ({"messages": TURNS, "q": "", "a": ""}, {"prompt": "q"}, "prompt_completion"),
        ({**ANSWERED, "chosen": "", "rejected": ""}, {}, "preference"),
        ({"better": "", **ANSWERED}, {"chosen": "better"}, "preference"),
        ({"chosen": "", "rejected": "", "ok": True}, {"label": "ok"}, "preference"),
        ({**ANSWERED, "label": "perhaps"}, {}, "prompt_completion"),
        ({"body": "x"}, {"text": "body"}, "text"),
    ],
)
def test_a_format_is_recognised_by_columns_and_by_what_the_recipe_names(values, fields, expected):
    assert recognized(values, **fields) == expected


def test_a_label_beside_an_answer_makes_it_an_unpaired_preference():
    for values in (
        {**ANSWERED, "label": True},
        {"messages": TURNS, "label": False},
        {**ANSWERED, "label": "False"},  # as CSV has it
    ):
        sample = sample_reader(DataSpec(), Row("a:1", values))(Row("a:1", values))
        assert sample.context == 1
        assert len(sample.messages) == 2


@pytest.mark.parametrize("values", [ANSWERED, {"messages": TURNS}])
@pytest.mark.parametrize("label", [0, 1, "1", "no", 0.0])
def test_a_label_that_may_be_a_class_is_a_question(values, label):
    row = Row("sentiment.jsonl:1", {**values, "label": label})
    with pytest.raises(DataError, match=r"sentiment\.jsonl:1: .*unpaired_preference.*data\.format"):
        sample_reader(DataSpec(), row)
    named = "messages" if "messages" in values else "prompt_completion"
    plain = sample_reader(DataSpec(format=named), row)(row)
    assert plain.desirable is None
    judged = sample_reader(DataSpec(format="unpaired_preference"), row)(row)
    assert judged.desirable is (label in (1, "1"))


def test_a_format_that_is_registered_is_read_and_recognised(monkeypatch):
    entries = dict(FORMATS)  # the registry is complete from here on
    monkeypatch.setattr(FORMATS, "_entries", entries)
    registry.register(
        DataFormat(
            "rhyme",
            ("line", "rhyme"),
            lambda first: 50 if first.columns >= {"line", "rhyme"} else None,
            lambda spec: lambda row: Sample.plain(f"{row.values['rhyme']}", row.origin),
        )
    )
    row = Row("a.jsonl:1", {"line": "x", "rhyme": "y"})
    assert sample_reader(DataSpec(), row)(row).text == "y"
    both = Row("a.jsonl:1", {**row.values, "messages": TURNS})
    with pytest.raises(DataError, match=r"a\.jsonl:1: .* messages or of rhyme; say .*data\.format"):
        sample_reader(DataSpec(), both)
    with pytest.raises(DataError, match="'line' and 'rhyme'; or 'prompt'"):
        sample_reader(DataSpec(), Row("a.jsonl:1", {"other": 1}))


# Layouts of other programs


def read(values, **fields) -> Sample:
    """Read a row as `format: auto` does."""
    row = Row("a.jsonl:1", values)
    spec = DataSpec(**fields)
    return sample_reader(spec, row)(row)


def said(sample: Sample) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in sample.messages]


def test_dolly_puts_the_context_after_the_instruction():
    row = {"instruction": "Who?", "context": "Ann did.", "response": "Ann.", "category": "qa"}
    assert said(read(row)) == [("user", "Who?\n\nAnn did."), ("assistant", "Ann.")]
    for empty in ({"context": ""}, {"context": None}):
        assert said(read({**row, **empty}))[0] == ("user", "Who?")
    assert said(read({"instruction": "Who?", "response": "Ann."}))[0] == ("user", "Who?")
    with pytest.raises(DataError, match="'instruction' and 'context' are both empty"):
        read({**row, "instruction": "", "context": ""})


def test_input_and_output_are_a_prompt_and_its_answer():
    assert said(read({"input": "q", "output": "a"})) == [("user", "q"), ("assistant", "a")]
    assert recognized({"instruction": "i", "input": "q", "output": "a"}) == "alpaca"
    with pytest.raises(
        DataError, match=r"input_output or of prompt_completion; say .*data\.format"
    ):
        read({"input": "q", "output": "a", **ANSWERED})


GEMINI = {
    "systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]},
    "contents": [
        {"role": "user", "parts": [{"text": "Wea"}, {"text": "ther?"}]},
        {
            "role": "model",
            "parts": [
                {"text": "I look.", "thought": True},
                {"functionCall": {"name": "look", "args": {"at": "sky"}}},
            ],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "look", "response": {"sky": "grey"}}}],
        },
        {"role": "model", "parts": [{"text": "Rain."}]},
    ],
    "tools": [{"functionDeclarations": [{"name": "look", "parameters": {"type": "OBJECT"}}]}],
}


def test_contents_of_gemini_are_a_conversation():
    sample = read(GEMINI)
    assert said(sample) == [
        ("system", "Be brief."),
        ("user", "Weather?"),
        ("assistant", ""),
        ("tool", '{"sky": "grey"}'),
        ("assistant", "Rain."),
    ]
    assert sample.messages[2].reasoning == "I look."
    (call,) = sample.messages[2].tool_calls
    assert (call.name, call.arguments) == ("look", {"at": "sky"})
    assert sample.messages[3].name == "look"
    assert [tool["function"]["name"] for tool in sample.tools] == ["look"]
    snake = {"system_instruction": "Be brief.", "contents": GEMINI["contents"]}
    assert said(read(snake)) == said(sample)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("hi", "contents is not JSON"),
        ([], r"contents must be a list of \{role, parts\}"),
        ([{"role": "user"}], r"contents turn 1 must be \{role, parts\}"),
        (
            [{"role": "user", "parts": [{"inlineData": {"data": "x"}}]}],
            r"turn 1, part 1: text, functionCall and functionResponse are read, got 'inlineData'",
        ),
        ([{"role": "user", "parts": [{"text": 5}]}], "part 1: text must be text, got 5"),
        ([{"role": "pilot", "parts": [{"text": "x"}]}], "unknown role 'pilot'"),
    ],
)
def test_what_gemini_contents_cannot_be_is_refused(contents, message):
    with pytest.raises(DataError, match=rf"a\.jsonl:1: .*{message}|a\.jsonl:1: {message}"):
        read({"contents": contents})


def test_a_system_instruction_of_gemini_is_text_or_parts():
    for wrong in ([{"text": "x"}], {"text": "x"}, 5):
        with pytest.raises(DataError, match=r"a\.jsonl:1: systemInstruction must be"):
            read({**GEMINI, "systemInstruction": wrong})
