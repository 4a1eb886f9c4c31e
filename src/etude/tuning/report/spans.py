"""Let through of a piece of HTML only what a coloured sample needs.

The sample comes from a run's folder, which may have come from somebody else. Text is escaped
again, and of all tags only `<span class="trained|context|dropped">` stays.
"""

from __future__ import annotations

from html import escape
from html.parser import HTMLParser

from markupsafe import Markup

CLASSES = frozenset({"trained", "context", "dropped"})


def only_token_spans(html: str) -> Markup:
    """Return `html` with every tag dropped but spans of the known classes, text kept."""
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
