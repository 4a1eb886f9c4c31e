"""ROUGE beside rouge-score on English, and by its definition in other scripts."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from etude.tuning.metrics.lcs import longest_common_subsequence
from etude.tuning.metrics.rouge import rouge_l, rouge_n, split_words

REFEREE = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
PARAGRAPHS = [
    paragraph
    for file in sorted(Path(__file__).parents[3].glob("docs/*.md"))
    for paragraph in file.read_text("utf-8").split("\n\n")
    if paragraph.isascii() and 100 < len(paragraph) < 1200
]


def assert_equal_to_rouge_score(reference, candidate):
    theirs = REFEREE.score(reference, candidate)
    ours = {
        "rouge1": rouge_n(reference, candidate, 1),
        "rouge2": rouge_n(reference, candidate, 2),
        "rougeL": rouge_l(reference, candidate),
    }
    for name, score in ours.items():
        found = (score.precision, score.recall, score.fmeasure)
        assert found == pytest.approx(tuple(theirs[name]), abs=1e-15), name


def test_scores_of_prose_are_those_of_rouge_score():
    assert len(PARAGRAPHS) > 40
    for reference, candidate in pairwise(PARAGRAPHS):
        assert_equal_to_rouge_score(reference, candidate)
        assert_equal_to_rouge_score(reference, f"{candidate[:60]} {reference[30:200]}")


WORDS = [
    "return",
    "Returns",
    "returned",
    "the",
    "SUM",
    "sums",
    "of",
    "x1",
    "don't",
    "a_b",
    "-",
    "7",
]


@given(st.lists(st.sampled_from(WORDS), max_size=15), st.lists(st.sampled_from(WORDS), max_size=15))
def test_scores_of_like_texts_are_those_of_rouge_score(reference, candidate):
    assert_equal_to_rouge_score(" ".join(reference), " ".join(candidate))


@given(st.text(st.characters(max_codepoint=127)), st.text(st.characters(max_codepoint=127)))
def test_scores_of_any_ascii_are_those_of_rouge_score(reference, candidate):
    assert_equal_to_rouge_score(reference, candidate)


SENTENCES = {
    "Chinese": ("模型学习数据。", "模型忘记数据。"),
    "Japanese": ("モデルはデータを学ぶ。", "モデルはデータを忘れる。"),
    "Korean": ("모델은 데이터를 배운다.", "모델은 데이터를 잊는다."),
    "Thai": ("แบบจำลองเรียนรู้ข้อมูล", "แบบจำลองลืมข้อมูล"),
    "Arabic": ("النموذج يتعلم البيانات", "النموذج ينسى البيانات"),
    "Hindi": ("मॉडल डेटा सीखता है।", "मॉडल डेटा भूलता है।"),
    "Russian": ("Модель учит данные.", "Модель забывает данные."),
    "Greek": ("Το μοντέλο μαθαίνει.", "Το μοντέλο ξεχνά."),
    "German": ("Größe zählt über alles.", "Größe zählt für alle."),
    "Khmer": ("គំរូរៀនទិន្នន័យ", "គំរូភ្លេចទិន្នន័យ"),
    "mixed": ("LoRA 微调 7B 模型", "LoRA 训练 7B 模型"),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_every_script_is_compared(language):
    text, other = SENTENCES[language]
    for score in (rouge_n(text, text, 1), rouge_n(text, text, 2), rouge_l(text, text)):
        assert score.fmeasure == 1.0
    assert 0.0 < rouge_l(text, other).fmeasure < 1.0
    assert rouge_l(text, "completely different words").fmeasure == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Größe, café!", ["größe", "café"]),
        ("cafe\u0301", ["café"]),
        ("ＬｏＲＡ", ["lora"]),
        ("don’t stop", ["don", "t", "stop"]),
        ("naïve models", ["naïve", "model"]),
        ("学习 LoRA模型", ["学", "习", "lora", "模", "型"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("हिन्दी है", ["हिन्दी", "है"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("。！…", []),
    ],
)
def test_words_are_cut_by_script(text, words):
    found = split_words(text)
    assert [word.key for word in found] == words
    assert all(text[word.start : word.end].strip() for word in found)


def test_scores_are_counted_by_their_definition():
    score = rouge_n("模型模型", "模型", 1)
    assert (score.precision, score.recall) == (1.0, 0.5)
    assert rouge_l("a b c d", "b d x").recall == 0.5
    assert rouge_l("", "").fmeasure == 0.0
    assert rouge_l("a", "").fmeasure == 0.0


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_no_common_subsequence_is_longer(left, right):
    pairs = longest_common_subsequence(left, right)
    assert all(left[i] == right[j] for i, j in pairs)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))
    longest = max(
        (
            size
            for size in range(len(left) + 1)
            for chosen in combinations(left, size)
            if is_subsequence(chosen, right)
        ),
    )
    assert len(pairs) == longest


def is_subsequence(chosen, text):
    rest = iter(text)
    return all(letter in rest for letter in chosen)


def test_long_texts_are_compared_whole():
    left = [n * 7919 % 3001 for n in range(3000)]
    right = [0] * 2000 + left + [1] * 1000
    assert len(longest_common_subsequence(left, right)) == len(left)
