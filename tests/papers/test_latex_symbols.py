"""One table of commands: what each of its users makes of it, in both directions."""

from __future__ import annotations

import unicodedata

import pytest

from etude.papers import latex_symbols
from etude.papers.arxiv.text import plain_name
from etude.papers.exchange.latex import compilable, escaped, plain
from etude.papers.fake_arxiv.texts import tex
from etude.papers.latex_text import latex_to_text
from etude.papers.search import text as search

COMPOSED = sorted(
    {
        letter
        for base in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        for mark in latex_symbols.ACCENTS.values()
        if len(letter := unicodedata.normalize("NFC", base + mark)) == 1
    }
)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"\'e", "é"),
        (r"\`{a}", "à"),
        (r"\^o", "ô"),
        (r"\~n", "ñ"),
        (r"\"u", "ü"),
        (r"\=a", "ā"),
        (r"\.z", "ż"),
        (r"\u{g}", "ğ"),
        (r"\v{s}", "š"),
        (r"\H{o}", "ő"),
        (r"\c{c}", "ç"),
        (r"\d{s}", "ṣ"),
        (r"\b{d}", "ḏ"),
        (r"\r{u}", "ů"),
        (r"\k{a}", "ą"),
        (r"{\ss}", "ß"),
        (r"{\o}", "ø"),
        (r"{\L}", "Ł"),
        (r"{\AE}", "Æ"),
        (r"{\oe}", "œ"),
        (r"{\aa}", "å"),
        (r"{\i}", "ı"),
        (r"{\dj}", "đ"),
        (r"{\TH}", "Þ"),
        (r"{\NG}", "Ŋ"),
    ],
)
def test_accents_and_letters_are_read_alike_everywhere(written, text):
    assert plain_name(written) == plain(written) == latex_to_text(written) == text
    assert plain(escaped(text)) == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"5\textdegree{} C", "5° C"),
        (r"a\textendash b", "a–b"),
        (r"\S 3", "§3"),
        (r"\pounds 5", "£5"),
        (r"\texteuro{}5", "€5"),
        (r"5\textdollar", "5$"),
        (r"5\textpercent", "5%"),
        (r"\guillemotleft a\guillemotright", "«a»"),
        (r"\textquestiondown Qu\'e", "¿Qué"),
        (r"a\textbraceleft b", "a{b"),
        (r"\textquotedbl a", '"a'),
        (r"2\texttimes 3", "2×3"),
        ("more\\ldots", "more…"),
    ],
)
def test_characters_are_read_alike_in_titles_and_references(written, text):
    assert plain(written) == latex_to_text(written) == text
    assert plain(compilable(written)) == text


def test_a_backslash_is_shown_but_never_again_read_as_a_command():
    assert latex_to_text(r"a\textbackslash b") == "a∖b"
    assert plain(r"a\textbackslash b") == r"a\b"
    assert escaped("a\\b") == r"a\textbackslash{}b"


@pytest.mark.parametrize("letter", COMPOSED)
def test_composed_letters_survive_writing_and_reading(letter):
    assert plain_name(tex(f"X{letter}y")) == f"X{letter}y"
    assert plain(escaped(f"X{letter}y")) == f"X{letter}y"
    assert escaped(letter).isascii()


@pytest.mark.parametrize("letter", latex_symbols.LETTERS.values())
def test_letters_survive_writing_and_reading(letter):
    assert plain_name(tex(f"X{letter}y")) == f"X{letter}y"
    assert plain(escaped(f"X{letter}y")) == f"X{letter}y"
    assert escaped(letter).isascii()


def test_search_reads_past_every_accent():
    for command in latex_symbols.ACCENTS:
        assert search.plain(rf"Andr\{command}{{e}}s") == "Andres"


def test_each_direction_is_the_inverse_of_the_other():
    for there, back in (
        (latex_symbols.ACCENTS, latex_symbols.ACCENTS_BY_MARK),
        (latex_symbols.LETTERS, latex_symbols.LETTERS_BY_CHARACTER),
    ):
        assert len(back) == len(there), "two commands for one sign"
        assert all(back[sign] == command for command, sign in there.items())
