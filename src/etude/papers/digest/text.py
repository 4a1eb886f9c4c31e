"""Plain-text rendering of a digest, for terminals and mail programs."""

from __future__ import annotations

import textwrap

from etude.papers.attribution import NOT_ARXIV, THANKS
from etude.papers.digest.content import Content, Extra, Item, Section
from etude.papers.words import shown

WIDTH = 78


def written_text(content: Content) -> str:
    """Return the digest, without control characters and direction marks."""
    lines = [*_wrapped(content.subject), "=" * min(WIDTH, len(content.subject)), ""]
    if content.empty:
        lines += [*_wrapped(content.empty), ""]
    for name, extra in (("Topic", content.topic), ("Problem", content.problem)):
        if extra is not None:
            lines += _extra(name, extra)
    for section in content.sections:
        lines += _section(section)
    return "\n".join([*lines, *_wrapped(THANKS), *_wrapped(NOT_ARXIV), ""])


def _extra(name: str, extra: Extra) -> list[str]:
    lines = _wrapped(f"{name} of the day: {extra.title}")
    lines += _wrapped(extra.text, "  ") if extra.text else []
    return [*lines, *(_wrapped(extra.link, "  ") if extra.link else []), ""]


def _section(section: Section) -> list[str]:
    note = f" ({section.note})" if section.note else ""
    head = shown(section.name + note)[:WIDTH]
    lines = [head, "-" * len(head), ""]
    for item in section.items:
        lines += [*_item(item), ""]
    if section.left_out:
        lines += [f"and {section.left_out:,} more", ""]
    return lines


def _item(item: Item) -> list[str]:
    paper = item.card
    lines = _wrapped(f"* {paper.title}", "", "  ")
    lines += _wrapped(paper.byline(), "  ") if paper.authors else []
    if paper.summary:
        lines += _wrapped(paper.summary, "  > ", "    ")
        lines += _wrapped(f"({paper.made})", "    ")
    for facts in filter(None, (marks_of(item), reason_of(item))):
        lines += _wrapped(facts, "  ")
    return [*lines, f"  {paper.link}"]


def marks_of(item: Item) -> str:
    """Return the marks of a paper and the other shelves that it belongs to."""
    also = [f"also {', '.join(item.also)}"] if item.also else []
    return "; ".join([*item.card.marks, *also])


def reason_of(item: Item) -> str:
    """Return the reason of a paper's rank; empty if only its date decided."""
    if item.explored:
        return "included for exploration"
    return f"because of {', '.join(item.why[:5])}" if item.why else ""


def _wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    return textwrap.wrap(
        shown(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_on_hyphens=False,
    )
