"""Sanitiser for the HTML of the token sample.

The sample is read from a run's folder, which is untrusted. Text is escaped again, and the only
tags kept are `<span class="trained|context|dropped">`.
"""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser

from markupsafe import Markup

CLASSES = frozenset({"trained", "context", "dropped"})


def only_token_spans(html: str) -> Markup:
    """Return `html` with all tags removed except spans of the known classes."""
    filter_ = _Filter()
    filter_.feed(html)
    filter_.close()
    return Markup("".join(filter_.pieces) + "</span>" * filter_.depth)


class _Filter(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.depth = 0
        self._kept: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "span":
            return
        name = dict(attrs).get("class")
        self._kept.append(name in CLASSES)
        if self._kept[-1]:
            self.pieces.append(f'<span class="{name}">')
            self.depth += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "span" and self._kept and self._kept.pop():
            self.pieces.append("</span>")
            self.depth -= 1

    def handle_data(self, data: str) -> None:
        self.pieces.append(escape(data))
