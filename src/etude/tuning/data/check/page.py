"""HTML page of findings, self-contained, with secrets masked."""

from __future__ import annotations

import html

from etude.tuning.data.check.findings import Finding
from etude.tuning.data.check.linter import ORDER, DataReport

ROWS_SHOWN = 400
"""Row numbers written out for each finding; the JSON has all."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884 }
:root { --error: #b3261e; --warning: #8a5a00; --note: #2f5d8a }
@media (prefers-color-scheme: dark) {
  :root { --error: #ff8a80; --warning: #ffc46b; --note: #8fc1f2 }
}
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin: 2rem 0 0; font-size: 1.1rem }
.error { color: var(--error) } .warning { color: var(--warning) } .note { color: var(--note) }
pre { white-space: pre-wrap; overflow-wrap: anywhere }
pre { border-left: 3px solid var(--line); padding-left: 1rem }
details { overflow-wrap: anywhere }
table { border-collapse: collapse }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line) }
"""


def report_page(report: DataReport, title: str) -> str:
    """Return a self-contained HTML page."""
    name = html.escape(title)
    rows = ", ".join(f"{count:,} {side}" for side, count in report.rows_in.items())
    refused = sum(map(len, report.unreadable.values()))
    rows += f", {refused:,} of them unreadable" if refused else ""
    table = "".join(
        f'<tr><td class="{found.severity}">{found.severity}</td>'
        f'<td><a href="#f{number}">{html.escape(found.title)}</a></td><td>{found.count:,}</td></tr>'
        for number, found in enumerate(report.findings)
    )
    body = "".join(_section(number, found) for number, found in enumerate(report.findings))
    counts = ", ".join(
        f"{sum(found.severity == severity for found in report.findings)} {severity}s"
        for severity in ORDER
    )
    summary = (
        f"<table><tr><th>Severity</th><th>Finding</th><th>Rows</th></tr>{table}</table>"
        if report.findings
        else "<p>No problems were found.</p>"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><h1>{name}</h1><p>Rows: {html.escape(rows)}. Found: {counts}.</p>"
        f"{summary}{body}</html>\n"
    )


def _section(number: int, found: Finding) -> str:
    examples = "\n".join(found.examples)
    rows = ", ".join(found.rows[:ROWS_SHOWN])
    more = f" and {found.count - ROWS_SHOWN:,} more" if found.count > ROWS_SHOWN else ""
    fix = f"<p>--fix {html.escape(found.fix)}.</p>" if found.fix else ""
    return (
        f'<h2 id="f{number}"><span class="{found.severity}">{found.severity}</span> '
        f"<b>{html.escape(found.title)}</b> ({found.check}, {found.count:,})</h2>"
        f"<p>{html.escape(found.advice)}.</p>{fix}"
        f"<pre>{html.escape(examples)}</pre>"
        f"<details><summary>rows</summary>{html.escape(rows)}{more}</details>"
    )
