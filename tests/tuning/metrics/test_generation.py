"""Metrics of generated texts beside rouge-score and sacreBLEU, and by their definitions."""

from __future__ import annotations

import json
from functools import partial
from itertools import combinations

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from etude.core.errors import DataError
from etude.tuning.metrics.extractive import lead1, oracle, sentences_of
from etude.tuning.metrics.generation import (
    TEXT_METRICS,
    GeneratedText,
    MetricSettings,
    answer_of,
    scored,
)
from etude.tuning.metrics.rouge import best_of, rouge_n
from etude.tuning.metrics.slots import read_slots, realized

PLAIN = MetricSettings()
WORDS = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "dogs", "running", "ran", ",", "."]),
    min_size=1,
    max_size=9,
).map(" ".join)
TEXTS = st.lists(
    st.builds(
        lambda text, references: GeneratedText(text, tuple(references), "rows.jsonl:1"),
        WORDS,
        st.lists(WORDS, min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@given(TEXTS)
def test_rouge_of_several_references_is_that_of_rouge_score(texts):
    referee = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = scored(texts, ["rouge1", "rouge2", "rougeL"], PLAIN)
    for name, key in (("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rougeL", "rouge")):
        theirs = [
            referee.score_multi(list(one.references), one.text)[name].fmeasure for one in texts
        ]
        assert found[key] == pytest.approx(100 * sum(theirs) / len(theirs), abs=1e-12)


@given(TEXTS)
def test_bleu_and_chrf_are_sacrebleus_with_as_many_references_as_each_text_has(texts):
    found = scored(texts, ["bleu", "chrf"], PLAIN)
    most = max(len(one.references) for one in texts)
    # Repeating a reference changes neither figure, so every text can be given as many.
    streams = [
        [one.references[min(place, len(one.references) - 1)] for one in texts]
        for place in range(most)
    ]
    said = [one.text for one in texts]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, streams).score, abs=1e-9)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(said, streams).score, abs=1e-9)


def test_bleu_compares_characters_where_a_script_writes_no_spaces():
    chinese = [GeneratedText("模型学习数据和语言。", ("模型学习数据和代码。",), "r:1")]
    expected = sacrebleu.corpus_bleu(
        [chinese[0].text], [[chinese[0].references[0]]], tokenize="char"
    )
    assert scored(chinese, ["bleu"], PLAIN)["bleu"] == pytest.approx(expected.score)
    assert expected.score > 50
    assert "spaces" in TEXT_METRICS["bleu"].validity


@pytest.mark.parametrize(
    ("text", "reference", "pattern", "same"),
    [
        ("Paris.", " paris", None, True),
        ("It is Paris", "Paris", None, False),
        ("3 + 4 = 7\n#### 7", "#### 7", r"####\s*(.+)", True),
        ("#### 7\nno, #### 8", "#### 8", r"####\s*(.+)", True),
        ("#### 1,024", "#### 1024", r"####\s*(.+)", True),
        ("#### 1,02", "#### 102", r"####\s*(.+)", False),
        ("the answer is 7", "#### 7", r"####\s*(.+)", False),
        ("A then B", "B", r"[AB]", True),
    ],
)
def test_exact_match_compares_the_answer(text, reference, pattern, same):
    one = [GeneratedText(text, (reference,), "r:1")]
    settings = MetricSettings(answer_pattern=pattern)
    assert scored(one, ["exact_match"], settings) == {"exact_match": float(same)}


def test_a_reference_without_an_answer_is_named():
    one = [GeneratedText("#### 7", ("seven",), "gsm.jsonl:12")]
    with pytest.raises(DataError, match=r"gsm\.jsonl:12: eval\.answer_pattern .* matches nothing"):
        scored(one, ["exact_match"], MetricSettings(answer_pattern=r"####\s*(.+)"))
    assert answer_of("no number", r"\d+") is None


@pytest.mark.parametrize(
    "value",
    [
        "name : Blue Spice | area : city centre | family friendly : no | price : £20-25",
        "name[Blue Spice], area[city centre], family friendly[no], price[£20-25]",
        '{"name": "Blue Spice", "area": ["city centre"], "kids": "no", "price": "£20-25"}',
        {"name": "Blue Spice", "area": ["city centre"], "kids": "no", "price": "£20-25"},
    ],
)
def test_slots_are_read_in_every_form_and_found_word_by_word(value):
    slots = read_slots(value, "r:1: column 'data'")
    assert [one for _, one in slots] == ["Blue Spice", "city centre", "no", "£20-25"]
    said = "In the CITY CENTRE, the blue spice is £20 to 25, no children."
    # `no` says nothing that could be looked for, and `to` is in the price.
    assert realized(slots, said) == [True, True, False]
    texts = [GeneratedText(said, ("x",), "r:1", {"data": value})]
    assert scored(texts, ["slots"], MetricSettings(slots="data"))["slots"] == pytest.approx(2 / 3)


def test_what_is_no_slot_is_named_by_its_row():
    texts = [GeneratedText("x", ("x",), "r:7", {"data": "just words"})]
    with pytest.raises(DataError, match=r"r:7: column 'data' holds no slots"):
        scored(texts, ["slots"], MetricSettings(slots="data"))
    with pytest.raises(DataError, match=r"r:7: no column 'other' \(eval\.slots\)"):
        scored(texts, ["slots"], MetricSettings(slots="other"))


SOURCE = [
    "We study cats.",
    "Cats sit on mats because mats are warm.",
    "Dogs are ignored.",
    "Our mats are warm and soft.",
]


def test_the_oracle_is_the_best_pair_that_a_search_finds_and_lead_1_the_first_sentence():
    reference = ("Cats sit on warm mats that are soft.",)
    assert lead1(SOURCE, reference) == "We study cats."

    def value(text):
        return sum(best_of(partial(rouge_n, n=n), reference, text) for n in (1, 2))

    every = [
        " ".join(chosen)
        for count in range(1, len(SOURCE) + 1)
        for chosen in combinations(SOURCE, count)
    ]
    found = oracle(SOURCE, reference)
    assert value(found) == max(map(value, every)) > value(lead1(SOURCE, reference))
    assert oracle(["nothing shared"], ("other words",)) == ""


def test_a_text_is_cut_at_the_ends_of_its_sentences():
    text = 'It works. "Really?" Yes, e.g. with 3.5 mats!  Fine\n\nNext one.'
    expected = ["It works.", '"Really?"', "Yes, e.g. with 3.5 mats!", "Fine", "Next one."]
    assert sentences_of(text, "r:1") == expected
    assert sentences_of("模型学习。数据很好。", "r:1") == ["模型学习。", "数据很好。"]
    assert sentences_of([" a ", "b"], "r:1") == ["a", "b"]
    with pytest.raises(DataError, match="r:1: column 'abstract' is empty"):
        sentences_of(" ", "r:1: column 'abstract'")


# Real data


def test_people_realise_nearly_all_slots_of_e2e_and_other_rows_texts_do_not(shared_data):
    lines = (shared_data / "instruct" / "e2e_nlg" / "test.txt").read_text("utf-8").splitlines()
    rows = [line.split("||") for line in lines[:600] if "||" in line]
    settings = MetricSettings(slots="data")

    def share(said):
        texts = [
            GeneratedText(text, (text,), f"test.txt:{n}", {"data": data})
            for n, ((data, _), text) in enumerate(zip(rows, said, strict=True), start=1)
        ]
        return scored(texts, ["slots"], settings)["slots"]

    own = [text for _, text in rows]
    # Measured: 0.955; the rest is paraphrased.
    assert 0.93 < share(own) < 0.98
    assert share(own[300:] + own[:300]) < 0.5


def test_the_oracle_is_far_above_lead_1_on_scitldr(shared_data):
    lines = (shared_data / "summarise" / "scitldr" / "test.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:60]]
    found = {
        copy.__name__: scored(
            [
                GeneratedText(copy(row["source"], tuple(row["target"])), tuple(row["target"]), "r")
                for row in rows
            ],
            ["rouge1"],
            PLAIN,
        )["rouge1"]
        for copy in (lead1, oracle)
    }
    # Measured: 33.3 and 52.8.
    assert found["lead1"] + 15 < found["oracle"]
