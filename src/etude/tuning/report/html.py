"""Self-contained HTML pages.

Styles, script and drawings are inside the file, and its content security policy forbids all
requests and all scripts except its own, identified by hash. Text in a run's files is untrusted and
cannot run even if escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any, cast

import jinja2
from markupsafe import Markup

from etude.core.look import shared_styles
from etude.core.version import __version__
from etude.tuning.report.axis import thinned

TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, content: dict[str, Any]) -> str:
    """Return a page of `templates/`; all text in `content` is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast("dict[str, Any]", environment.globals).update(thinned=thinned, as_data=as_data)
    script = (TEMPLATES / "report.js").read_text("utf-8")
    page = environment.get_template(template).render(
        content,
        version=__version__,
        style=Markup(shared_styles() + (TEMPLATES / "report.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=_script_hash(script),
    )
    return page.strip() + "\n"


def as_data(content: Any) -> Markup:
    """Return JSON that cannot close its enclosing script element."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _script_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()
