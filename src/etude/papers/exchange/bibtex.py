"""BibTeX writer: one entry per paper, safe to compile whatever its authors typed.

Preprints are `@misc` with `eprint`, `archivePrefix` and `primaryClass`, as arXiv recommends
(https://info.arxiv.org/help/hypertex/bibstyles.html); a paper with a journal reference is
`@article`, or `@inproceedings` for a conference, and keeps its eprint.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from etude.papers.exchange.latex import compilable, escaped
from etude.papers.exchange.names import Name
from etude.papers.exchange.reference import Reference, reference

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Words with significant capitals; styles that lower the case of titles would break YOLOv8.
_CAPITALS = re.compile(
    r"(?<![\\{\w$])(?=\w*[A-Z])(?:\w[\w'-]*[A-Z][\w]*|\d+[\w-]*[A-Z]\w*)(?![\w}$])"
)
_FORMULA = re.compile(r"(\$[^$]*\$|\\[a-zA-Z]+(?:\{\})?|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})")
_WIDTH = 100


def write_bibtex(rows: list[dict[str, Any]]) -> str:
    """Return the entries of `rows`, in their order."""
    return "\n".join(map(_entry, rows))


def _entry(row: dict[str, Any]) -> str:
    facts = reference(row)
    kind = "misc"
    fields = {
        "title": _kept_capitals(compilable(facts.title)),
        "author": _authors(facts.names),
        "year": str(facts.year),
    }
    if facts.journal:
        kind = "inproceedings" if facts.proceedings else "article"
        fields["booktitle" if facts.proceedings else "journal"] = compilable(facts.journal)
    elif len(facts.date) > 1:
        fields["month"] = MONTHS[facts.date[1] - 1]
    fields |= _eprint(facts)
    if facts.comment:
        fields["comment"] = compilable(facts.comment)
    fields["abstract"] = compilable(facts.abstract)
    lines = [
        f"  {name:<13} = {value if name == 'month' else '{' + value + '}'},"
        for name, value in fields.items()
        if value
    ]
    return "\n".join([f"@{kind}{{{facts.key},", *lines, "}", ""])


def _eprint(facts: Reference) -> dict[str, str]:
    found = {"eprint": facts.id, "archivePrefix": "arXiv"}
    if facts.categories:
        found["primaryClass"] = escaped(facts.categories[0])
    if facts.doi:
        # Readers take a DOI verbatim, so characters that could end the field are percent-encoded.
        found["doi"] = quote(facts.doi, safe="/:;()<>[]_-.~+@!$&'*,=?|")
    found["url"] = facts.page
    if len(facts.categories) > 1:
        found["keywords"] = escaped(", ".join(facts.categories))
    return found


def _authors(names: tuple[Name, ...]) -> str:
    lines, width = [""], 0
    for number, name in enumerate(names):
        text = _author(name) + (" and" if number < len(names) - 1 else "")
        # Long lines are truncated by old versions of BibTeX; a paper may have 3,303 authors.
        if width + len(text) > _WIDTH:
            lines.append("")
            width = 0
        lines[-1] += (" " if lines[-1] else "") + text
        width += len(text) + 1
    return "\n                   ".join(lines)


def _author(name: Name) -> str:
    if name.literal:
        return "{" + escaped(name.literal) + "}"
    family = " ".join(part for part in (name.particle, name.family) if part)
    parts = [_shielded(part) for part in (family, name.suffix, name.given) if part]
    return ", ".join(parts)


def _shielded(part: str) -> str:
    # `and` and a comma are syntax in a list of names unless within braces.
    text = escaped(part)
    return "{" + text + "}" if re.search(r",|\band\b", text, re.IGNORECASE) else text


def _kept_capitals(title: str) -> str:
    pieces = _FORMULA.split(title)
    pieces[::2] = [_CAPITALS.sub(lambda match: "{" + match[0] + "}", text) for text in pieces[::2]]
    return "".join(pieces)
