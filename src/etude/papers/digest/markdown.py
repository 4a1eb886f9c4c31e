"""Markdown (CommonMark) rendering of a digest, in which only Etude makes links.

A title may contain a heading, a tracking image or a block of HTML. Any ASCII punctuation may be
escaped by a backslash (CommonMark 0.31, 2.4), so every character with a meaning in some dialect is,
as are the dots and colons of automatic links. GitHub detects mail addresses after resolving
escapes, so an at sign within a word is followed by an invisible word joiner.
"""

from __future__ import annotations

import re

from etude.papers.attribution import NOT_ARXIV, THANKS
from etude.papers.digest.content import Content, Extra, Item, Section
from etude.papers.digest.text import marks_of, reason_of
from etude.papers.words import shown

# No escape is needed for a comma, a quote, a hyphen within a word, a full stop after one.
_SIGN = re.compile(r"(?<=\w)-(?=\w)|(?<=[^\W\d])\.(?=\s|$)|([!-/:-@\[-`{-~])")
JOINER = "\u2060"
_HARMLESS = {",", "'", '"', ";", "?", "%"}


def escaped(text: str) -> str:
    """Return `text` on one line, escaped for every dialect of Markdown."""
    signs = _SIGN.sub(
        lambda match: match[0] if not match[1] or match[1] in _HARMLESS else f"\\{match[1]}",
        shown(text),
    )
    return signs.replace("\\@", f"\\@{JOINER}")


def written_markdown(content: Content) -> str:
    """Return the digest, with headings from the first level down."""
    lines = [f"# {escaped(content.subject)}", ""]
    if content.empty:
        lines += [escaped(content.empty), ""]
    for name, extra in (("Topic", content.topic), ("Problem", content.problem)):
        if extra is not None:
            lines += _extra(name, extra)
    for section in content.sections:
        lines += _section(section)
    return "\n".join([*lines, "---", "", f"{THANKS} {NOT_ARXIV}", ""])


def linked(text: str, address: str) -> str:
    """Return a link if the address is a web address, else the text."""
    if not re.fullmatch(r"https?://[^\s<>()\[\]\\\"'`*_]+", address):
        return escaped(text)
    return f"[{escaped(text)}](<{address}>)"


def _extra(name: str, extra: Extra) -> list[str]:
    lines = [f"## {name} of the day: {linked(extra.title, extra.link)}", ""]
    return [*lines, escaped(extra.text), ""] if extra.text else lines


def _section(section: Section) -> list[str]:
    note = f" ({section.note})" if section.note else ""
    lines = [f"## {escaped(section.name + note)}", ""]
    for item in section.items:
        lines += _item(item)
    if section.left_out:
        lines += [f"and {section.left_out:,} more", ""]
    return lines


def _item(item: Item) -> list[str]:
    paper = item.card
    lines = [f"- **{linked(paper.title, paper.link)}**  "]
    if paper.authors:
        lines.append(f"  {escaped(paper.byline())}  ")
    if paper.summary:
        lines.append(f"  {escaped(paper.summary)}  ")
        lines.append(f"  *({escaped(paper.made)})*  ")
    lines += [f"  {escaped(facts)}  " for facts in filter(None, (marks_of(item), reason_of(item)))]
    lines[-1] = lines[-1].rstrip()
    return [*lines, ""]
