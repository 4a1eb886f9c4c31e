"""Pages: Jinja templates of the app and of its rooms, and what all of them need.

`render(request, "lab/index.html", runs=…)` renders `rooms/lab/templates/index.html`, which extends
`base.html`. All text is escaped; Markdown becomes HTML by `| markdown` alone, HTML in it stays
text, and LaTeX between dollar signs becomes MathML (`formulas.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markdown_it import MarkdownIt
from markupsafe import Markup

from etude.core import units
from etude.core.version import __version__
from etude.web.assets import asset
from etude.web.formulas import add_formulas
from etude.web.security import style_nonce

if TYPE_CHECKING:
    from starlette.types import Scope

    from etude.web.room import Room

TEMPLATES = Path(__file__).parent / "templates"


def make_templates(rooms: Sequence[Room]) -> jinja2.Environment:
    """Return the environment of all templates."""
    own = {room.name: jinja2.FileSystemLoader(room.folder / "templates") for room in rooms}
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PrefixLoader(own), jinja2.FileSystemLoader(TEMPLATES)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    cast("dict[str, Any]", environment.globals).update(
        asset=asset,
        rooms=[room for room in rooms if room.listed],
        units=units,
        version=__version__,
    )
    cast("dict[str, Any]", environment.filters).update(markdown=markdown)
    return environment


def render(
    request: Request, template: str, status: int = 200, /, *, editor: bool = False, **content: Any
) -> HTMLResponse:
    """Return a page.

    Args:
        request: that it answers.
        template: `ROOM/file.html`, or a file of `web/templates`.
        status: of the answer.
        editor: whether the page has a code editor, whose styles need a nonce (`nonce`).
        content: what the template shows.
    """
    return render_scope(request.scope, template, status, editor=editor, **content)


def render_scope(
    scope: Scope, template: str, status: int = 200, /, *, editor: bool = False, **content: Any
) -> HTMLResponse:
    """Return a page; see `render`."""
    environment: jinja2.Environment = scope["state"]["templates"]
    session = scope["state"].get("session")
    page = environment.get_template(template).render(
        content,
        path=scope["path"],
        csrf=session.csrf if session else "",
        nonce=style_nonce(scope) if editor else None,
    )
    return HTMLResponse(page, status)


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    # An image would be fetched from wherever a stranger's text says.
    parser.disable("image")
    return add_formulas(parser)


def markdown(text: str) -> Markup:
    """Return Markdown as HTML, in which HTML is text, images are links, and links are harmless."""
    return Markup(_parser().render(text))
