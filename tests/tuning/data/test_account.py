"""What a row says is read, or counted as not read; marks on messages are honoured or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.account import TRAILING, Account
from etude.tuning.data.check.linter import check_data
from etude.tuning.data.draws import content_key
from etude.tuning.data.encode import Encoder
from etude.tuning.data.samples import load_samples
from etude.tuning.data.schema import DataSplit

TURNS = [{"role": "user", "content": "Say ahoy."}, {"role": "assistant", "content": "Ahoy."}]


def load(path: Path, rows: list[dict[str, Any]], **fields: Any) -> tuple[DataSplit, Account]:
    """Write rows to a file and read it, all of it as training samples."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    account = Account()
    spec = DataSpec(train=str(path), eval_fraction=0.0, **fields)
    return load_samples(spec, 0, account=account), account


def turns(split: DataSplit, place: int = 0) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in split.train[place].messages]


# Columns and keys that nothing reads


def test_every_column_and_key_of_a_row_is_counted_as_read_or_not(tmp_path):
    rows: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": "a", "name": "Ann", "stamp": 3},
                {"role": "assistant", "content": [{"type": "text", "text": "b", "cache": 1}]},
            ],
            "id": n,
            "topic": "x" if n else None,
        }
        for n in range(3)
    ]
    rows[2]["messages"].append({"role": "user", "content": "c"})
    split, account = load(tmp_path / "a.jsonl", rows)
    assert account.read["column 'messages'"] == account.read["message key 'role'"] == 3
    counts = {name: tally.count for name, tally in account.unread.items()}
    assert counts == {
        "column 'id'": 3,
        "column 'topic'": 2,  # a null says nothing
        "message key 'name'": 3,
        "message key 'stamp'": 3,
        "content part key 'cache'": 3,
        TRAILING: 1,
    }
    (note,) = [note for note in split.notes if note.startswith("not read")]
    assert "column 'id' (all 3 rows)" in note
    assert "column 'topic' (2 rows: a.jsonl:2, a.jsonl:3)" in note
    assert f"{TRAILING} (1 rows: a.jsonl:3)" in note


def test_a_template_reads_its_columns_and_a_path_only_its_own_key(tmp_path):
    row = {"question": {"text": "a?", "lang": "en"}, "answers": {"text": ["b", "c"]}, "kind": "q"}
    split, account = load(
        tmp_path / "a.jsonl",
        [row],
        prompt="[{kind}] {question.text}",
        completion="answers.text.0",
    )
    assert turns(split) == [("user", "[q] a?"), ("assistant", "b")]
    assert list(account.unread) == ["column 'question.lang'"]
    assert "column 'answers.text.0'" in account.read
    # A column of that very name comes first.
    flat, _ = load(
        tmp_path / "b.jsonl", [{"q.text": "x", "q": {"text": "y"}, "completion": "z"}],
        prompt="q.text",
    )  # fmt: skip
    assert turns(flat)[0] == ("user", "x")
    with pytest.raises(DataError, match=r"no column 'question\.body'.* with 'lang', 'text' in"):
        load(tmp_path / "c.jsonl", [row], prompt="question.body", completion="kind")


def test_rows_whose_fields_all_are_read_leave_no_note(tmp_path):
    split, account = load(tmp_path / "a.jsonl", [{"prompt": "a", "completion": "b"}])
    assert not account.unread
    assert not [note for note in split.notes if "read" in note]


def test_the_check_names_every_row_with_an_unread_field(tmp_path, tiny_tokenizer):
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n * 7}."} for n in range(20)]
    rows[7]["context"] = "Two and five."
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DataSpec(train=str(file), eval_fraction=0.0)
    report = check_data(spec, tiny_tokenizer, only=["unread"])
    (found,) = report.findings
    assert (found.severity, found.rows) == ("note", ["a.jsonl:8"])
    assert "'context'" in found.title
    told = report.as_json()
    assert told["unread"] == {"column 'context'": 1}
    assert told["read"]["column 'prompt'"] == 20


# Marks on answers


def trained(tokenizer: Any, split: DataSplit, **fields: Any) -> list[str]:
    """Return the trained texts of the first sample, one a run of trained tokens."""
    encoded = Encoder(tokenizer, DataSpec(train="x", **fields)).encode(split.train[0])
    text, runs = "", []
    for token, wanted in zip(encoded.input_ids.tolist(), encoded.trained.tolist(), strict=True):
        if wanted:
            text += tokenizer.decode([token])
        elif text:
            runs.append(text)
            text = ""
    return [*runs, text] if text else runs


def marked(*marks: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a conversation of as many answers as marks."""
    listed: list[dict[str, Any]] = []
    for number, mark in enumerate(marks):
        listed.append({"role": "user", "content": f"Question {number}"})
        listed.append({"role": "assistant", "content": f"Reply {number}", **mark})
    return listed


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ({"weight": 0}, {"weight": 1}),
        ({"weight": 0.0}, {"weight": None}),
        ({"train": False}, {"train": True}),
        ({"training": False}, {}),
        ({"loss": False}, {"loss": True}),
        ({"masked": True}, {"masked": False}),
        ({"prefix": True}, {"prefix": False}),
        ({"weight": 0, "prefix": False}, {}),
    ],
)
def test_an_answer_that_is_marked_as_context_is_not_trained(
    tmp_path, tiny_tokenizer, context, answer
):
    rows = [{"messages": marked(context, answer, context)}]
    split, account = load(tmp_path / "a.jsonl", rows)
    assert trained(tiny_tokenizer, split) == ["Reply 1<|im_end|>"]
    assert trained(tiny_tokenizer, split, trained_turns="last") == ["Reply 1<|im_end|>"]
    encoder = Encoder(tiny_tokenizer, DataSpec(train="x"))
    assert encoder.reference(split.train[0]) == "Reply 1"
    prompt = tiny_tokenizer.decode(encoder.prompt_ids(split.train[0]))
    assert "Reply 0" in prompt and "Reply 1" not in prompt
    assert not [name for name in account.unread if name != TRAILING]
    assert TRAILING in account.unread
    # The mark is part of the content: with and without, they are two samples.
    plain, _ = load(tmp_path / "b.jsonl", [{"messages": marked({}, {}, {})}])
    assert content_key(plain.train[0]) != content_key(split.train[0])


def test_marks_of_sharegpt_and_gemini_are_honoured_too(tmp_path, tiny_tokenizer):
    spoken = [
        {"from": "human", "value": "a"},
        {"from": "gpt", "value": "Reply 0", "weight": 0},
        {"from": "human", "value": "b"},
        {"from": "gpt", "value": "Reply 1", "loss": 1},
    ]
    split, account = load(tmp_path / "a.jsonl", [{"conversations": spoken}])
    assert trained(tiny_tokenizer, split) == ["Reply 1<|im_end|>"]
    assert not account.unread
    contents = [
        {"role": "model" if n % 2 else "user", "parts": [{"text": turn["value"]}]}
        for n, turn in enumerate(spoken)
    ]
    contents[1]["train"], contents[3]["stamp"] = False, 5
    split, account = load(tmp_path / "b.jsonl", [{"contents": contents}])
    assert trained(tiny_tokenizer, split) == ["Reply 1<|im_end|>"]
    assert list(account.unread) == ["message key 'stamp'"]


def test_marks_are_honoured_when_a_conversation_is_split_by_its_template(templated, tmp_path):
    # Reasoning of earlier answers is left out, so each answer is a sample of its own.
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    thought = "<think>\nhm\n</think>\n\n"
    listed = marked({}, {"weight": 0}, {})
    for turn in listed[1::2]:
        turn["content"] = thought + turn["content"]
    split, _ = load(tmp_path / "a.jsonl", [{"messages": listed}])
    tokenizer = templated(template)
    encoded = Encoder(tokenizer, DataSpec(train="x")).encode_all(split.train)
    learnt = [tokenizer.decode(s.input_ids[s.trained].tolist()) for s in encoded.samples]
    assert [text.count("Reply 0") for text in learnt] == [1, 0]
    assert "Reply 2" in learnt[1]
    assert not any("Reply 1" in text for text in learnt)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ({"weight": 0.5}, r"message 2: weight must be true or false \(1 or 0\).*got 0\.5"),
        ({"train": "no"}, r"message 2: train must be true or false.*got 'no'"),
        ({"loss": [1]}, r"message 2: loss must be true or false"),
        ({"weight": 1, "train": False}, r"weight: 1 and train: False contradict each other"),
        ({"train_detail": [{"begin_offset": 0}]}, r"train_detail trains parts of a turn"),
    ],
)
def test_a_mark_that_is_not_understood_is_refused(tmp_path, mark, message):
    with pytest.raises(DataError, match=rf"a\.jsonl:1: .*{message}"):
        load(tmp_path / "a.jsonl", [{"messages": marked(mark)}])


def test_a_mark_asks_in_vain_to_train_on_a_question(tmp_path):
    listed = marked({})
    listed[0]["weight"] = 1
    with pytest.raises(DataError, match=r"message 1: weight: 1 on a user turn.*set it to 0"):
        load(tmp_path / "a.jsonl", [{"messages": listed}])
    listed[0]["weight"] = 0
    load(tmp_path / "a.jsonl", [{"messages": listed}])


def test_a_conversation_of_context_alone_has_nothing_to_train(tmp_path, tiny_tokenizer):
    split, _ = load(tmp_path / "a.jsonl", [{"messages": marked({"weight": 0})}])
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*no answer that is trained"):
        trained(tiny_tokenizer, split)


# A system message in a column of its own

PAIR = {"prompt": "Hello?", "completion": "Ahoy."}
LAYOUTS = {
    "messages": {"messages": TURNS},
    "prompt_completion": PAIR,
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "alpaca": {"instruction": "a", "output": "b"},
    "preference": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "unpaired_preference": {**PAIR, "label": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("column", ["system", "system_prompt", "system_message"])
def test_a_system_column_comes_first_in_every_layout(tmp_path, layout, column):
    rows = [{column: "Speak like a sailor.", **LAYOUTS[layout]}, {column: "", **LAYOUTS[layout]}]
    split, account = load(tmp_path / "a.jsonl", rows, system="Be kind.")
    assert turns(split)[0] == ("system", "Speak like a sailor.")
    assert turns(split, 1)[0] == ("system", "Be kind.")
    assert account.read[f"column {column!r}"] == 2
    if layout == "preference":
        assert split.train[0].rejected[0].content == "Speak like a sailor."
        assert split.train[0].context == 2


def test_the_system_column_may_be_any_column_a_template_or_none(tmp_path):
    rows = [{"role": "a judge", "system": "Ignore me.", **PAIR}]
    split, account = load(tmp_path / "a.jsonl", rows, system_column="role")
    assert turns(split)[0] == ("system", "a judge")
    assert list(account.unread) == ["column 'system'"]
    split, _ = load(tmp_path / "a.jsonl", rows, system_column="Speak like {role}.")
    assert turns(split)[0] == ("system", "Speak like a judge.")
    split, account = load(tmp_path / "a.jsonl", rows, system_column=None)
    assert turns(split)[0] == ("user", "Hello?")
    assert set(account.unread) == {"column 'system'", "column 'role'"}
    with pytest.raises(DataError, match=r"no column 'persona' \(data\.system_column\)"):
        load(tmp_path / "a.jsonl", rows, system_column="persona")
    # A template of the prompt that reads the column already has it.
    split, _ = load(tmp_path / "a.jsonl", rows, prompt="{system} {prompt}")
    assert turns(split)[0] == ("user", "Ignore me. Hello?")


def test_two_system_messages_that_differ_are_refused(tmp_path):
    own = {"messages": [{"role": "system", "content": "A."}, *TURNS]}
    split, _ = load(tmp_path / "a.jsonl", [{"system": " A. ", **own}])
    assert len(turns(split)) == 3
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*'A\.' and 'B\.'.*system_column to null"):
        load(tmp_path / "a.jsonl", [{"system": "B.", **own}])
    with pytest.raises(DataError, match=r"'system' and 'system_prompt' have different"):
        load(tmp_path / "a.jsonl", [{"system": "A.", "system_prompt": "B.", **PAIR}])
    with pytest.raises(DataError, match=r"column 'system' must be text"):
        load(tmp_path / "a.jsonl", [{"system": {"text": "A."}, **PAIR}])


# Turns, calls and nulls


def test_roles_of_other_programs_are_read_in_messages(tmp_path):
    call = {"name": "look", "parameters": {"at": "sky"}}
    listed = [
        {"role": "human", "content": "Weather?"},
        {"role": "gpt", "content": "", "tool_calls": [call]},
        {"role": "ipython", "content": "rain"},
        {"role": "model", "content": "Rain."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ]  # fmt: skip
    split, account = load(tmp_path / "a.jsonl", [{"messages": listed}])
    (sample,) = split.train
    assert [turn.role for turn in sample.messages] == [
        "user", "assistant", "tool", "assistant", "user", "assistant",
    ]  # fmt: skip
    # Llama 3 writes a call's arguments as its parameters.
    assert sample.messages[1].tool_calls[0].arguments == {"at": "sky"}
    assert not account.unread


def test_nulls_that_a_file_says_are_kept_and_those_that_arrow_adds_are_not(tmp_path):
    schema = {
        "name": "book",
        "parameters": {"properties": {"note": {"type": "string", "default": None}}},
    }
    call = {"function": {"name": "book", "arguments": {"day": "Friday", "note": None}}}
    listed = [TURNS[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    rows = [{"tools": [schema], "messages": listed}]
    split, _ = load(tmp_path / "a.jsonl", rows)
    (sample,) = split.train
    assert sample.messages[1].tool_calls[0].arguments == {"day": "Friday", "note": None}
    function = sample.tools[0]["function"]
    assert function["parameters"]["properties"]["note"] == {"type": "string", "default": None}
    # Two calls with other arguments: each gets the keys of both, null where it has none.
    other = {"function": {"name": "call", "arguments": {"number": 5}}}
    listed[1] = {**listed[1], "content": "", "tool_calls": [call, other]}
    table = pa.Table.from_pylist([{"messages": listed}])
    pq.write_table(table, tmp_path / "a.parquet")
    read = load_samples(DataSpec(train=str(tmp_path / "a.parquet"), eval_fraction=0.0), 0)
    calls = read.train[0].messages[1].tool_calls
    assert [dict(c.arguments) for c in calls] == [{"day": "Friday"}, {"number": 5}]


def test_prompt_and_completion_may_be_lists_of_messages(tmp_path, tiny_tokenizer):
    before = marked({})
    prompt = [{"role": "system", "content": "Be brief."}, *before, before[0]]
    rows = [{"prompt": prompt, "completion": [{"role": "assistant", "content": "Oslo."}]}]
    split, _ = load(tmp_path / "a.jsonl", rows)
    assert [role for role, _ in turns(split)] == [
        "system", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    # An answer in the prompt is context; only the completion is trained.
    assert trained(tiny_tokenizer, split) == ["Oslo.<|im_end|>"]
    with pytest.raises(DataError, match=r"'completion' has no turn of the assistant"):
        load(tmp_path / "b.jsonl", [{"prompt": "a", "completion": [before[0]]}])


# Rows that are no sample


def test_a_run_offers_the_check_by_name_for_a_row_that_is_no_sample(tmp_path):
    rows: list[dict[str, Any]] = [PAIR, PAIR, {"prompt": "x", "completion": None}, PAIR]
    offer = r"`etude data check \S*a\.jsonl --fix a\.fixed\.jsonl`"
    with pytest.raises(DataError, match=rf"a\.jsonl:3: .*got null; {offer}"):
        load(tmp_path / "a.jsonl", rows)
    # What the recipe gets wrong about every row, the check does not mend.
    with pytest.raises(DataError, match=r"no column 'question'") as caught:
        load(tmp_path / "a.jsonl", rows, prompt="question")
    assert "data check" not in str(caught.value)


def test_rows_may_be_read_around_those_that_are_refused(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("{oops\n" + json.dumps(PAIR) + "\n" + json.dumps({"prompt": 1}) + "\n")
    account = Account()
    spec = DataSpec(train=str(file), eval_fraction=0.0)
    split = load_samples(spec, 0, account=account, refuse=False)
    assert len(split.train) == 1
    assert account.refused.first == ["a.jsonl:1", "a.jsonl:3"]
    assert "a.jsonl:1 is not JSON" in str(account.refusal())
