"""HTML rendering of a digest for mail programs and browsers.

Mail programs strip scripts, most of the head, and external resources. So styles are inline, and the
head only adds the dark colour scheme. Nothing is loaded from elsewhere, and in a browser the page's
content security policy forbids it.
"""

from __future__ import annotations

import re
from html import escape

from etude.papers.attribution import NOT_ARXIV, THANKS
from etude.papers.digest.content import Content, Extra, Item, Section
from etude.papers.digest.text import marks_of, reason_of
from etude.papers.words import shown

_FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif"
_STYLES = {
    "page": f"margin:0;padding:0;background:#f6f6f4;color:#1d1d1b;{_FONT}",
    "sheet": "max-width:640px;margin:0 auto;padding:16px;font-size:16px;line-height:1.5;"
    "overflow-wrap:anywhere",
    "title": "font-size:24px;line-height:1.25;margin:8px 0 16px",
    "head": "font-size:18px;line-height:1.3;margin:32px 0 8px;padding-bottom:4px;"
    "border-bottom:2px solid #b9b8b2",
    "item": "margin:0 0 20px",
    "link": "color:#0b4f8a;font-weight:600;text-decoration:none",
    "quiet": "color:#55554f;font-size:14px",
    "mark": "color:#8a3a00;font-size:14px;font-weight:600",
    "said": "margin:4px 0",
    "extra": "margin:0 0 20px;padding:12px 16px;background:#ffffff;border:1px solid #dcdbd5;"
    "border-radius:8px",
    "foot": "color:#55554f;font-size:13px;margin:40px 0 8px;padding-top:8px;"
    "border-top:1px solid #b9b8b2",
}
_DARK = """@media (prefers-color-scheme: dark) {
.page{background:#161615!important;color:#ecebe6!important}
.extra{background:#21211f!important;border-color:#3c3b38!important}
.link{color:#8cc2f5!important}.quiet,.foot{color:#b3b2ab!important}.mark{color:#f0a76b!important}
.head,.foot{border-color:#55544f!important}}
.link:hover{text-decoration:underline!important}"""


def written_html(content: Content) -> str:
    """Return the page, with every text escaped."""
    parts = [_tag("h1", "title", escape(content.subject))]
    if content.empty:
        parts.append(_tag("p", "said", escape(content.empty)))
    for name, extra in (("Topic", content.topic), ("Problem", content.problem)):
        if extra is not None:
            parts.append(_extra(name, extra))
    parts += [_section(section) for section in content.sections]
    parts.append(_tag("p", "foot", escape(f"{THANKS} {NOT_ARXIV}")))
    body = _tag("div", "sheet", "\n".join(parts))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="supported-color-schemes" content="light dark">\n'
        f"<title>{escape(content.subject)}</title>\n<style>{_DARK}</style></head>\n"
        f"{_tag('body', 'page', body)}</html>\n"
    )


def _tag(name: str, kind: str, inside: str) -> str:
    return f'<{name} class="{kind}" style="{_STYLES[kind]}">{inside}</{name}>\n'


def _link(text: str, address: str) -> str:
    if not re.match(r"https?://[^\s]+$", address):
        return f"<strong>{escape(shown(text))}</strong>"
    return (
        f'<a class="link" style="{_STYLES["link"]}" href="{escape(address)}" '
        f'rel="noopener noreferrer">{escape(shown(text))}</a>'
    )


def _extra(name: str, extra: Extra) -> str:
    inside = _tag("div", "quiet", f"{name} of the day") + _link(extra.title, extra.link)
    if extra.text:
        inside += _tag("p", "said", escape(shown(extra.text)))
    return _tag("div", "extra", inside)


def _section(section: Section) -> str:
    note = f" ({section.note})" if section.note else ""
    parts = [_tag("h2", "head", escape(shown(section.name + note)))]
    parts += [_item(item) for item in section.items]
    if section.left_out:
        parts.append(_tag("p", "quiet", f"and {section.left_out:,} more"))
    return "".join(parts)


def _item(item: Item) -> str:
    paper = item.card
    lines = [f"<div>{_link(paper.title, paper.link)}</div>\n"]
    if paper.authors:
        lines.append(_tag("div", "quiet", escape(paper.byline())))
    if paper.summary:
        lines.append(_tag("p", "said", escape(paper.summary)))
        lines.append(_tag("div", "quiet", escape(f"Summary: {paper.made}")))
    facts = marks_of(item)
    if facts:
        lines.append(_tag("div", "mark", escape(shown(facts))))
    reason = reason_of(item)
    if reason:
        lines.append(_tag("div", "quiet", escape(shown(reason))))
    return _tag("div", "item", "".join(lines))
