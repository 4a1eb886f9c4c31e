"""The look that all pages share: tokens (colours, typefaces), elements and patterns made of them.

A page that must be one file includes the text; the web app's style sheet is built from the same
files.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
SHEETS = ("tokens.css", "base.css")
"""Style sheets in the order in which they apply."""


def shared_styles() -> str:
    """Return the text of the shared style sheets."""
    return "\n".join((FOLDER / name).read_text("utf-8") for name in SHEETS)
