"""The linter finds every planted fault at its rows, and nothing in clean data."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import DataError
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.check.encodings import repaired
from etude.tuning.data.check.fixing import write_fixed
from etude.tuning.data.check.languages import language_of
from etude.tuning.data.check.linter import CHECKS, DataReport, check_data
from etude.tuning.data.check.page import report_page
from etude.tuning.data.check.private import SECRETS, iban, luhn, masked, secrets_in

NOUNS = ("river", "engine", "garden", "market", "teacher", "window", "bridge", "letter", "harbour")
VERBS = ("opens", "crosses", "repairs", "paints", "measures", "follows", "carries", "answers")


def clean_rows(count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Rows that differ in most of their words."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words = [draw.choice((*NOUNS, *VERBS)) for _ in range(14)]
        rows.append(
            {
                "prompt": f"What happens when the {' '.join(words)} is {number}?",
                "completion": f"Then the {' and the '.join(words[::-1][:9])} are {number * 7}.",
            }
        )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), "utf-8")
    return path


@pytest.fixture
def check(tmp_path, tiny_tokenizer):
    """Check rows written to a file: returns the report and the spec."""

    def run(rows, held=None, only=(), skip=(), **fields) -> tuple[DataReport, DataSpec]:
        train = write(tmp_path / "train.jsonl", rows)
        spec = {"train": str(train), "eval_fraction": 0.0, "max_length": 400, **fields}
        if held is not None:
            spec["eval"] = str(write(tmp_path / "test.jsonl", held))
        data = DataSpec.model_validate(spec)
        return check_data(data, tiny_tokenizer, only=only, skip=skip), data

    return run


def lines_of(report: DataReport, name: str) -> list[int]:
    """Line numbers of the findings of one check."""
    rows = [row for found in report.findings if found.check == name for row in found.rows]
    return [int(row.rpartition(":")[2]) for row in rows]


def test_clean_data_have_no_findings(check):
    report, _ = check(clean_rows(), clean_rows(20, seed=1))
    assert report.findings == []
    assert report.rows == {"eval": 20, "train": 60}
    assert report.worst() is None


def plant(rows, changes):
    """Rows with some columns changed, by line number."""
    for line, change in changes.items():
        rows[line - 1] = {**rows[line - 1], **change}
    return rows


LONG, LONGER = (" ".join(random.Random(n).choices((*NOUNS, *VERBS), k=500)) for n in (5, 6))

PLANTED: dict[str, dict[int, dict[str, Any]]] = {
    "empty-answers": {4: {"completion": ""}, 9: {"completion": " \n"}},
    "empty-prompts": {5: {"prompt": "  "}},
    "too-long": {7: {"prompt": LONG}, 11: {"completion": LONGER}},
    "mojibake": {3: {"completion": "The cafÃ© is closed, itâ€™s late."}, 8: {"prompt": "NaÃ¯ve?"}},
    "lost-characters": {2: {"prompt": "What is a caf\ufffd like when the harbour opens?"}},
    "control-characters": {6: {"completion": "The bridge\x00 is\x1b[31m red."}},
    "line-ends": {12: {"prompt": "first line of it\r\nsecond line of it"}},
    "invisible-characters": {13: {"prompt": "What is the zero\u200bwidth letter here?"}},
    "direction-marks": {14: {"prompt": "What is \u202egnidaer\u202c of the letter?"}},
    "decomposed": {15: {"prompt": "Where is the cafe\u0301 of the market?"}},
    "wrong-template": {16: {"prompt": "[INST] What is the engine? [/INST]"}},
    "rendered-twice": {17: {"prompt": "What<|im_end|> is the window?"}},
    "given-away": {
        18: {"prompt": "The answer is forty-two bridges. Which?", "completion": "forty-two bridges"}
    },
    "private": {
        19: {"completion": "Write to anna.meier@firma-mueller.de about the bridge."},
        21: {"prompt": "My key is AKIAIOSFODNN7EXAMPLQ, why?"},
        23: {"prompt": "-----BEGIN RSA PRIVATE KEY----- what is this?"},
        24: {"completion": "Pay with 4539 1488 0343 6467 at the market."},
    },
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_at_its_rows_and_nowhere_else(check, name):
    rows = plant(clean_rows(), PLANTED[name])
    report, _ = check(rows, clean_rows(20, seed=1))
    assert sorted(lines_of(report, name)) == sorted(PLANTED[name])
    # An empty prompt or answer, or one rendered before, cannot be trained on either.
    allowed = {name, "not-trainable", "too-long" if name == "too-long" else name}
    assert {found.check for found in report.findings} <= allowed


def test_all_faults_at_once_are_found_each_by_itself(check):
    faults = {line: change for planted in PLANTED.values() for line, change in planted.items()}
    report, _ = check(plant(clean_rows(), faults))
    for name, planted in PLANTED.items():
        assert set(lines_of(report, name)) >= set(planted), name


def test_copies_near_copies_and_contradictions_name_the_row_that_they_repeat(check):
    rows = clean_rows()
    rows[10] = rows[2]
    rows[20] = {**rows[3], "prompt": rows[3]["prompt"].upper() + " "}
    rows[30] = {**rows[4], "completion": rows[4]["completion"] + " indeed"}
    report, _ = check(rows)
    found = {finding.check: finding for finding in report.findings}
    assert lines_of(report, "duplicates") == [11, 21]
    assert found["duplicates"].examples[0] == "train.jsonl:11 repeats train.jsonl:3"
    assert lines_of(report, "near-duplicates") == [31]
    assert lines_of(report, "contradictions") == [31]
    assert "train.jsonl:5" in found["contradictions"].examples[0]


def test_overlap_with_the_evaluation_is_told_from_the_same_question(check):
    rows, held = clean_rows(), clean_rows(20, seed=1)
    rows[5] = held[3]
    rows[15] = {**held[4], "completion": "Something else altogether is the case there."}
    rows[25] = {"prompt": f"{held[6]['prompt']} So?", "completion": held[6]["completion"]}
    report, _ = check(rows, held)
    assert lines_of(report, "overlap") == [6]
    assert lines_of(report, "overlap-prompt") == [16]
    assert lines_of(report, "overlap-near") == [26]
    assert report.worst() == "error"


def test_rows_held_out_by_share_are_compared_too(check):
    rows = clean_rows(40)
    rows += [{**row, "completion": row["completion"] + " Yes."} for row in rows]
    report, _ = check(rows, eval_fraction=0.3)
    assert report.rows["eval"] > 3
    assert len(lines_of(report, "overlap-prompt")) > 3


def test_a_label_that_is_nearly_always_right_is_an_imbalance(check):
    rows = [{**row, "completion": "positive"} for row in clean_rows(60)]
    for line in (7, 17, 27):
        rows[line - 1]["completion"] = "negative"
    report, _ = check(rows)
    assert lines_of(report, "label-imbalance") == [7, 17, 27]
    even = [{**row, "completion": ("yes", "no")[i % 2]} for i, row in enumerate(clean_rows(60))]
    assert not check(even)[0].findings


def test_labels_are_compared_in_spelling_and_with_the_evaluation(check):
    rows = [{**row, "completion": ("yes", "no")[i % 2]} for i, row in enumerate(clean_rows(60))]
    held = [{**row, "completion": "no"} for row in clean_rows(10, seed=1)]
    rows[2]["completion"] = "Yes."
    held[4]["completion"] = "maybe"
    report, _ = check(rows, held)
    assert lines_of(report, "label-spelling") == [3]
    assert lines_of(report, "unseen-labels") == [5]


def test_turns_out_of_order_are_said_in_words(check):
    good = {"role": "user", "content": "What is the bridge that crosses the river here?"}
    answer = {"role": "assistant", "content": "It is the old one beside the harbour."}
    rows = [
        {"messages": [good, answer]},
        {"messages": [good, {**good, "content": "And the window of the engine?"}, answer]},
        {"messages": [good, answer, {"role": "user", "content": "And then?"}]},
        {"messages": [answer, good, answer]},
    ]
    report, _ = check(rows, only=["role-order"])
    (found,) = report.findings
    assert lines_of(report, "role-order") == [2, 3, 4]
    assert "two turns of the user in a row" in found.examples[0]
    assert "ends with the user" in found.examples[1]
    assert "begins with the assistant" in found.examples[2]


def test_pairs_and_verdicts_have_checks_of_their_own(check):
    rows = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": f"No {i}, never that."}
        for i, row in enumerate(clean_rows(30))
    ]
    rows[4]["rejected"] = rows[4]["chosen"]
    report, _ = check(rows, only=["identical-pair"])
    assert lines_of(report, "identical-pair") == [5]
    unpaired = [{**row, "label": i != 3} for i, row in enumerate(clean_rows(40))]
    report, _ = check(unpaired)
    assert [found.check for found in report.findings] == ["verdict-imbalance"]


def test_texts_rendered_before_want_their_end_token_and_no_second_start(check):
    turn = "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\nThe bridge {}.{}"
    rows = [{"text": turn.format(i, "<|im_end|>")} for i in range(12)]
    rows[3] = {"text": turn.format("three", "")}
    rows[5] = {"text": f"<|im_start|>{turn.format('five', '<|im_end|>')}"}
    report, _ = check(rows)
    assert lines_of(report, "missing-end") == [4]
    assert lines_of(report, "doubled-start") == [6]


def test_a_model_without_a_template_or_with_one_of_another_is_said(tmp_path, tiny_tokenizer):
    import copy

    spec = DataSpec(train=str(write(tmp_path / "a.jsonl", clean_rows())), eval_fraction=0.0)
    bare = copy.deepcopy(tiny_tokenizer)
    bare.chat_template = None
    assert [f.check for f in check_data(spec, bare).findings] == ["no-template"]
    other = copy.deepcopy(tiny_tokenizer)
    other.chat_template = tiny_tokenizer.chat_template.replace("im_start", "start_of_talk")
    assert "split-marks" in {f.check for f in check_data(spec, other).findings}


def test_markers_that_the_tokenizer_splits_are_suggested_as_tokens(tmp_path, tiny_tokenizer):
    import copy

    rows = clean_rows()
    rows[3]["completion"] = "<|call|>add(2, 3)<|result|> which is five, as anybody can count."
    rows[5]["prompt"] = "<|call|> is what the question begins with, and it asks for the harbour."
    rows[7]["completion"] = "A < b | c > d is no marker, and neither is <b>bold</b> text here."
    spec = DataSpec(train=str(write(tmp_path / "a.jsonl", rows)), eval_fraction=0.0)
    (found,) = check_data(spec, tiny_tokenizer, only=["unknown-tokens"]).findings
    assert found.severity == "warning"
    assert found.rows == ["a.jsonl:4", "a.jsonl:6"]
    assert 'model.add_tokens: ["<|call|>", "<|result|>"]' in found.advice
    grown = copy.deepcopy(tiny_tokenizer)
    grown.add_tokens(["<|call|>", "<|result|>"])
    assert check_data(spec, grown, only=["unknown-tokens"]).findings == []


def test_a_template_of_another_model_is_none_where_its_markers_are_tokens(tmp_path, tiny_tokenizer):
    import copy

    rows = clean_rows()
    rows[2]["completion"] = "<start_of_turn>model\nIt is the old bridge.<end_of_turn>"
    spec = DataSpec(train=str(write(tmp_path / "a.jsonl", rows)), eval_fraction=0.0)
    (found,) = check_data(spec, tiny_tokenizer, only=["wrong-template"]).findings
    assert found.rows == ["a.jsonl:3"]
    grown = copy.deepcopy(tiny_tokenizer)
    grown.add_tokens(["<start_of_turn>", "<end_of_turn>"], special_tokens=True)
    assert check_data(spec, grown, only=["wrong-template"]).findings == []


def test_rows_that_cannot_be_read_are_counted_and_the_others_checked(check):
    rows = clean_rows()
    del rows[6]["completion"]
    rows[8]["completion"] = [["a"], "list"]
    rows[12] = rows[11]
    report, _ = check(rows)
    assert lines_of(report, "unreadable") == [7, 9]
    assert lines_of(report, "duplicates") == [13]


def test_a_file_that_breaks_off_is_checked_up_to_there_and_says_so(tmp_path, tiny_tokenizer):
    file = write(tmp_path / "a.jsonl", clean_rows(20))
    file.write_text(file.read_text("utf-8") + '{"prompt": "half', "utf-8")
    report = check_data(DataSpec(train=str(file), eval_fraction=0.0), tiny_tokenizer)
    (found,) = report.findings
    assert found.check == "unreadable"
    assert found.examples == ["a.jsonl:21 is not JSON: Unterminated string starting at (column 12)"]
    assert report.rows == {"train": 20}
    assert report.rows_in == {"train": 21}
    assert report.unreadable == {"train": ["a.jsonl:21"]}


def test_checks_are_chosen_by_name_or_family(check):
    rows = plant(clean_rows(), PLANTED["mojibake"] | PLANTED["private"])
    assert {f.check for f in check(rows, only=["encodings"])[0].findings} == {"mojibake"}
    assert {f.check for f in check(rows, skip=["private"])[0].findings} == {"mojibake"}
    with pytest.raises(DataError, match=r"unknown check 'mojibke' \(did you mean 'mojibake'"):
        check(rows, only=["mojibke"])


# Fixing


def test_what_is_safe_is_put_right_and_what_was_read_is_left_alone(check, tmp_path):
    rows = plant(
        clean_rows(),
        PLANTED["mojibake"]
        | PLANTED["control-characters"]
        | PLANTED["empty-answers"]
        | PLANTED["line-ends"]
        | PLANTED["decomposed"]
        | PLANTED["private"],
    )
    held = clean_rows(20, seed=1)
    rows[40], rows[41], rows[42] = rows[1], held[2], {**rows[30], "extra": {"kept": ["Ã©", 3]}}
    report, spec = check(rows, held)
    before = Path(spec.train).read_bytes()
    output = tmp_path / "fixed.jsonl"
    done = write_fixed(spec, report, output)
    assert Path(spec.train).read_bytes() == before
    assert {reason: len(of_reason) for reason, of_reason in done.left_out.items()} == {
        "copies of earlier rows": 2,  # the row with another column is a copy, too
        "rows that are in the evaluation data": 1,
        "rows with an empty answer": 2,
    }
    assert done.left_out["rows that are in the evaluation data"] == ["train.jsonl:42"]
    assert (done.rows_in, done.rows_out) == (60, 55)
    changed = sorted(PLANTED["mojibake"] | PLANTED["control-characters"])
    changed += [*PLANTED["line-ends"], *PLANTED["decomposed"]]
    assert done.repaired == [f"train.jsonl:{line}" for line in sorted(changed)]
    written = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert "café is closed, it’s late." in written[2]["completion"]
    again, _ = check(written, held)
    assert {found.check for found in again.findings} == {"private"}  # that needs a person
    with pytest.raises(DataError, match="name another file"):
        write_fixed(spec, report, Path(spec.train))


@given(st.text(st.characters(max_codepoint=0x17F, exclude_categories=("Cs", "Cc")), max_size=40))
def test_mojibake_of_any_western_text_is_undone(text):
    import unicodedata

    text = unicodedata.normalize("NFC", text).replace("\xad", "")
    try:
        broken = text.encode().decode("cp1252")
    except UnicodeDecodeError:
        return  # this text cannot be broken so
    fixed = repaired(broken)
    # A run beside characters that were whole before may hide its borders; alone it is undone.
    if all(ord(c) < 128 or ord(c) >= 0xA0 for c in text):
        assert fixed == text or repaired(fixed) == repaired(text)


@pytest.mark.parametrize(
    "text",
    [
        "Où est le café ? « Ici » — à côté, 25 €.",
        "Größe über alles: Straße, Äpfel, Öl.",
        "El niño pidió piñas; ¿cuántas? ¡Muchas!",
        "Zażółć gęślą jaźń. Příliš žluťoučký kůň.",
        "«MARCHÉ» and “quotes”, an ellipsis… and a dash –",
        "Привет, мир. 你好，世界。 こんにちは 😀",
        "naïve façade © 2024 ± 5 µm × 3",
    ],
)
def test_sound_text_of_many_languages_is_left_alone(text):
    assert repaired(text) == text


# Private text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mail jane.doe+x@mail.acme.co.uk now", "e-mail address"),
        ("ghp_" + "a1B2" * 9, "GitHub token"),
        ("sk-proj-" + "Ab3dEf6hIj9l" * 3, "OpenAI or Anthropic key"),
        ("hf_" + "aBcDeFgHiJ" * 3, "Hugging Face token"),
        ("AIza" + "Sy0123456789abcdefghijklmnopqrstuvw", "Google API key"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "web token"),
        ('password = "hunter2Hunter2xQ9z"', "password or key"),
        ("4539148803436467", "card number"),
        ("DE89 3704 0044 0532 0130 00", "bank account"),
        ("GB29NWBK60161331926819", "bank account"),
    ],
)
def test_private_text_is_recognised_and_masked(text, name):
    (secret, match) = next(iter(secrets_in(text)))
    assert secret.name == name
    shown = masked(secret, match)
    assert len(shown) < len(match)
    assert match[8:] not in shown


@pytest.mark.parametrize(
    "text",
    [
        "write to someone@example.com or @someone on the forum",
        "he ran 1400 1600 1800 2000 metres on 4 days",
        "the number 4539148803436468 fails its check digit",
        "IBAN DE00 3704 0044 0532 0130 00 is a wrong one",
        "password: please choose a good one",
        "an sk-learn pipeline, hf_hub_download, xoxo",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
        "x = 3.141592653589793238, y = 1234567890123",
        "price@100 each, a@b",
    ],
)
def test_what_only_looks_private_is_not(text):
    assert list(secrets_in(text)) == []


@given(st.lists(st.sampled_from([*NOUNS, *VERBS, "42", "3.5", "the"]), max_size=40))
def test_plain_sentences_hold_nothing_private(words):
    assert list(secrets_in(" ".join(words))) == []


@given(st.integers(10**14, 10**15 - 1))
def test_of_ten_check_digits_one_is_right(number):
    digits = f"4{number % 10**14:014d}"
    if len(set(digits)) >= 5:
        assert sum(luhn(f"{digits}{check}") for check in range(10)) == 1
    assert not iban("XX00" + digits)


def test_every_hint_is_in_what_its_pattern_finds():
    for secret in SECRETS:
        if secret.hint:
            assert secret.hint.replace("\\", "") in secret.pattern.pattern.replace("\\", "")


# Languages


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The river crosses the market and that is what we have seen of it.", "English"),
        ("Der Fluss ist nicht so breit wie die Straße, aber sie sind auf dem Weg.", "German"),
        ("Le pont est dans la ville et nous ne sommes pas sur la route avec vous.", "French"),
        (
            "El puente no es tan largo como la calle pero está en la que hay para todos.",
            "Spanish",
        ),
        ("Il ponte non è nel centro della città ma anche lui è con una di loro.", "Italian"),
        ("Мост через реку закрыт сегодня.", "Cyrillic script"),
        ("今日は橋が閉まっています。", "Japanese"),
        ("桥今天关闭了，请走另一条路。", "Chinese or Japanese"),
        ("def f(x): return [y for y in x if y is not None]", None),
        ("Ben has 4 x 10 = 40 basketball cards.", None),
        ("42", None),
    ],
)
def test_a_sentence_shows_its_language(text, language):
    assert language_of(text) == language


def test_strays_of_another_language_are_found_and_translation_is_not(check):
    rows = clean_rows(40)
    german = "Das ist nicht der Fluss, sondern die Brücke, und sie ist auf dem Weg zu uns."
    rows[9]["completion"] = german
    report, _ = check(rows)
    # Made-up answers of nouns show no language; those that do must be enough to compare with.
    assert not report.findings
    for i, row in enumerate(rows):
        row["completion"] = (
            f"That is what we have of it and it is not the {row['prompt'][40:60]} {i}."
        )
    rows[9]["completion"] = german
    report, _ = check(rows)
    assert lines_of(report, "languages") == [10]
    translation = [{**row, "prompt": f"{german} {i}"} for i, row in enumerate(rows) if i != 9]
    assert not check(translation, only=["languages"])[0].findings


# Output


def test_neither_the_page_nor_the_json_holds_a_secret_or_runs_anything(check):
    rows = plant(clean_rows(), PLANTED["private"])
    rows[1]["prompt"] = "<script>alert(1)</script> Ã© what is this?"
    report, _ = check(rows)
    page, data = report_page(report, "<b>title</b>"), json.dumps(report.as_json())
    for secret in ("anna.meier", "firma-mueller", "AKIAIOSFODNN7EXAMPLQ", "4539 1488 0343 6467"):
        assert secret not in page
        assert secret not in data
    assert "<script" not in page
    assert "<b>title" not in page
    assert "train.jsonl:24" in page


def test_every_finding_is_one_that_its_family_lists(check):
    faults = {line: change for planted in PLANTED.values() for line, change in planted.items()}
    report, _ = check(plant(clean_rows(), faults), clean_rows(20, seed=1))
    listed = {name for checks in CHECKS.values() for name in checks.split()}
    assert {found.check for found in report.findings} <= listed
    assert all(found.title and found.advice for found in report.findings)


def test_work_grows_with_the_rows_and_not_with_their_square(monkeypatch, tiny_tokenizer, tmp_path):
    # Rows of one template share bands: comparisons are what could grow with the square.
    from etude.tuning.data import duplicates

    compared = 0
    jaccard = duplicates.jaccard

    def counted(first, second):
        nonlocal compared
        compared += 1
        return jaccard(first, second)

    monkeypatch.setattr(duplicates, "jaccard", counted)
    counts = []
    for number in (400, 1600):
        compared = 0
        rows = [
            {
                "prompt": f"A farm has {i} cows and {i * 3} hens; {i * 7} are sold, then {i + 2} "
                f"bought for {i * 11} each. How many animals of the {i % 17} kinds are there?",
                "completion": f"There are {i * 5} animals.",
            }
            for i in range(number)
        ]
        spec = DataSpec(train=str(write(tmp_path / "t.jsonl", rows)), eval_fraction=0.0)
        check_data(spec, None, only=["repeats"])
        counts.append(compared)
    assert counts[1] <= 1600 * 16 * 32
    assert counts[1] < 8 * counts[0]


@pytest.mark.parametrize("name", ["gsm8k", "medquad"])
def test_real_chat_data_have_few_findings_and_no_false_alarm(shared_data, tiny_tokenizer, name):
    folder = shared_data / "instruct" / name
    spec = DataSpec(
        train=str(folder / "test.jsonl"),
        eval_fraction=0.0,
        prompt="question",
        completion="answer",
        max_length=100_000,
    )
    report = check_data(spec, tiny_tokenizer)
    assert not [found for found in report.findings if found.severity == "error"]
    assert not [found for found in report.findings if found.check in ("languages", "mojibake")]
