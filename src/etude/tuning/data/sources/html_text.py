"""Text of an HTML page: what a reader sees, block by block.

It registers no source.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_UNSEEN = frozenset({"script", "style", "template", "noscript", "svg", "head"})
_VOID = frozenset({"br", "hr"})
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd"),
        *("details", "dialog", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer"),
        *("form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "legend", "li", "main", "nav"),
        *("ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead"),
        *("title", "tr", "ul"),
    )
)


def html_to_text(html: str) -> str:
    """Return the text of a page without tags, scripts and styles.

    Blocks are separated by a blank line, white space within them is folded except in `pre`, and
    entities are resolved. The page's title comes first.
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    reader.end_block()
    return "\n\n".join(reader.blocks)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self._pieces: list[str] = []
        self._hidden: list[str] = []
        self._title = False
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag == "body" or (self._hidden == ["head"] and tag in _BLOCKS - {"title"}):
            # A page may leave out the end of its head, and the beginning of its body.
            self._hidden.clear()
        if tag in _UNSEEN:
            self._hidden.append(tag)
        if tag in _BLOCKS:
            self.end_block()
        if tag in _VOID:
            self._pieces.append("\n")
        self._title = tag == "title"
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.end_block()
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
        self._title = False
        if tag == "pre" and self._pre:
            self._pre -= 1

    def handle_data(self, data: str) -> None:
        if not self._hidden or (self._title and self._hidden == ["head"]):
            self._pieces.append(data if self._pre else re.sub(r"\s+", " ", data))

    def end_block(self) -> None:
        """End a block of text; nothing is added where there was none."""
        text = "".join(self._pieces)
        self._pieces.clear()
        if not self._pre:
            text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
        text = text.strip("\n") if self._pre else text.strip()
        if text.strip():
            self.blocks.append(text)
