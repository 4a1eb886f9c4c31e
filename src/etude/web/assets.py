"""The built styles, scripts and fonts: hashed names, sent packed, and cached for good.

`static/dist/manifest.json` maps the names that templates use to those of the files. A request
names an entry of the manifest, never a path.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from etude.web.security import public

DIST = Path(__file__).parent / "static" / "dist"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}

router = APIRouter()


@cache
def manifest() -> dict[str, str]:
    """Return the file of each name."""
    return json.loads((DIST / "manifest.json").read_text("utf-8"))


def asset(name: str) -> str:
    """Return the address of a built file, such as `app.js`."""
    return f"/static/{manifest()[name]}"


@cache
def _content(file: str) -> tuple[bytes, bytes]:
    content = (DIST / file).read_bytes()
    return content, gzip.compress(content, 9, mtime=0)


@router.get("/static/{file}")
@public
def static(request: Request, file: str) -> Response:
    """Send a built file."""
    if file not in manifest().values():
        raise HTTPException(404)
    content, packed = _content(file)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if Path(file).suffix != ".woff2" and "gzip" in request.headers.get("accept-encoding", ""):
        content = packed
        headers["Content-Encoding"] = "gzip"
    return Response(content, media_type=TYPES[Path(file).suffix], headers=headers)
