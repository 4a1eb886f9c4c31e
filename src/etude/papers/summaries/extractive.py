"""Extractive summaries, the default: one verbatim sentence of the abstract, chosen by a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from etude.papers.latex_text import latex_to_text
from etude.papers.sentences import sentences
from etude.papers.summaries.cut import CUT, MOST_WORDS, cut
from etude.papers.words import folded

VERSION: Final = "1"
"""Version of the model and the selection; a change recomputes all summaries."""
WHOLE: Final = f"extract:{VERSION}"
CUT_SHORT: Final = f"extract-cut:{VERSION}"
NOTICE: Final = f"notice:{VERSION}"
NOTHING: Final = f"none:{VERSION}"
MOST_SENTENCES: Final = 60
"""Maximum number of sentences read of an abstract; arXiv's longest have about 25."""
LONGEST_LETTERS: Final = 400
"""Maximum characters of a summary, for long tokens such as URLs and formulas."""
_FEWEST_WORDS: Final = 4
_WITHDRAWN = re.compile(
    r"\b(?:this|the) (?:paper|article|submission|manuscript|work|preprint|version)\b.{0,40}"
    r"\b(?:withdrawn|retracted)\b|^\W*(?:withdrawn|retracted)\b"
    r"|\bwithdrawn by (?:the )?(?:author|arxiv)",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Summary:
    """A one-line summary and how it was made, see `described`."""

    text: str
    how: str


def pieces(title: str, abstract: str) -> list[str]:
    """Return the candidates of a plain-text abstract: its sentences, long ones cut.

    Candidates that repeat the title, and fragments of a few words, are dropped if others remain.
    """
    found = [_short(sentence) for sentence in sentences(abstract)[:MOST_SENTENCES]]
    other = [piece for piece in found if not says_title(piece, title)]
    return [piece for piece in other if len(piece.split()) >= _FEWEST_WORDS] or other


def _short(sentence: str) -> str:
    piece = cut(sentence)
    if len(piece) <= LONGEST_LETTERS:
        return piece
    return piece[: LONGEST_LETTERS - 1].rstrip() + CUT


def says_title(text: str, title: str) -> bool:
    """Return whether `text` repeats the title, ignoring case and punctuation."""
    return _bare(text) == _bare(title)


def _bare(text: str) -> str:
    return "".join(_LETTERS.findall(text.lower() if text.isascii() else folded(text)))


def is_notice(abstract: str) -> bool:
    """Return whether an abstract is only a notice of withdrawal."""
    return len(abstract.split()) <= 80 and _WITHDRAWN.search(abstract) is not None


def extract(papers: Sequence[tuple[str, str]], *, whole: bool = False) -> list[Summary]:
    """Return a summary of each (title, abstract), given in source form.

    An abstract without a usable sentence (empty, or the title again) gets an empty text.

    Args:
        papers: titles and abstracts.
        whole: prefer any complete sentence of at most 30 words to a cut one.
    """
    from etude.papers.summaries.model import ranker

    read = [(latex_to_text(title), latex_to_text(abstract)) for title, abstract in papers]
    shown = [pieces(title, abstract) for title, abstract in read]
    asked = [n for n, found in enumerate(shown) if len(found) > 1]
    ranked = ranker().scores([(read[n][0], shown[n]) for n in asked])
    scores = dict(zip(asked, ranked, strict=True))
    summaries: list[Summary] = []
    for n, found in enumerate(shown):
        if not found:
            summaries.append(Summary("", NOTHING))
        elif is_notice(read[n][1]):
            notice = next((piece for piece in found if _WITHDRAWN.search(piece)), found[0])
            summaries.append(Summary(notice, NOTICE))
        else:
            best = 0
            if n in scores:
                order = sorted(range(len(found)), key=lambda at: (-scores[n][at], at))
                entire = [at for at in order if not is_cut(found[at])]
                best = entire[0] if whole and entire else order[0]
            piece = found[best]
            summaries.append(Summary(piece, CUT_SHORT if is_cut(piece) else WHOLE))
    return summaries


def gists(papers: Sequence[tuple[str, str]], most: int = 3) -> list[str]:
    """Return the `most` best candidates of each (title, abstract), in the abstract's order.

    Input for a small model: the most relevant third of the abstract.
    """
    from etude.papers.summaries.model import ranker

    read = [(latex_to_text(title), latex_to_text(abstract)) for title, abstract in papers]
    shown = [pieces(title, abstract) for title, abstract in read]
    asked = [n for n, found in enumerate(shown) if found]
    scores = ranker().scores([(read[n][0], shown[n]) for n in asked])
    texts = [""] * len(papers)
    for n, score in zip(asked, scores, strict=True):
        best = sorted(sorted(range(len(score)), key=lambda at: -score[at])[:most])
        ends = [shown[n][at].strip(CUT) for at in best]
        texts[n] = " ".join(end if end.endswith((".", "!", "?")) else f"{end}." for end in ends)
    return texts


def is_cut(piece: str) -> bool:
    """Return whether a candidate is cut, or ends with an ellipsis by its author."""
    return piece.startswith(CUT) or piece.endswith(CUT)


__all__ = ["MOST_WORDS", "Summary", "extract", "is_cut", "is_notice", "pieces", "says_title"]
