"""Error pages: what is wrong, and what to do now."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from etude.core.errors import EtudeError, StoreError
from etude.web.pages import render_scope

TITLES = {
    400: "This request cannot be read",
    401: "This browser has not been let in yet",
    403: "This request was refused",
    404: "There is no such page",
    405: "This page takes no such request",
    413: "This is too large",
    422: "Something in this form cannot be used",
    500: "This page failed",
    503: "The database does not answer",
}
WORDS = {
    "host": "It names another server. Open the address that `etude up` printed.",
    "origin": "It came from another site. Go back, and press the button on Etude's own page.",
    "token": "The page that it came from is no longer valid. Reload that page and try again.",
    "session": "Open the address that `etude up` printed in the terminal, or run `etude up` again: "
    "it opens a browser that is let in.",
    "body": "What was sent is larger than this page takes. Nothing of it was read or stored.",
    404: "It may have been removed, or the address is mistyped.",
    405: "Go back, and use the buttons and links of the page.",
    500: "The fault is Etude's. The terminal of `etude up` shows where it happened; nothing that "
    "was stored before is lost.",
}


def error_page(scope: Scope, status: int, words: str) -> Response:
    """Return the page, or JSON for what asked for JSON, of an error."""
    accepted = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
    if "application/json" in accepted and "text/html" not in accepted:
        return JSONResponse({"error": TITLES.get(status, "Error"), "detail": words}, status)
    title = TITLES.get(status, TITLES[400 if status < 500 else 500])
    return render_scope(scope, "error.html", status, status=status, title=title, words=words)


def refusal(scope: Scope, status: int, reason: str) -> Response:
    """Return the page for what the gate refused."""
    if reason == "session" and scope["state"]["password"] is not None and scope["method"] == "GET":
        return RedirectResponse("/login", 303)
    if reason == "host":
        # Nothing more than this is shown to a page that may be another site's.
        return Response(f"403 {WORDS[reason]}\n", 403, media_type="text/plain")
    return error_page(scope, status, WORDS[reason])


def add_error_pages(app: FastAPI) -> None:
    """Let all errors be pages."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:  # pyright: ignore[reportUnusedFunction]
        known = WORDS.get(error.status_code, "")
        # Starlette's own detail is the status in words.
        own = error.detail if error.detail and " " in error.detail.strip() else ""
        words = known if error.status_code in (404, 405) and not own else own or known
        return error_page(request.scope, error.status_code, words)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:  # pyright: ignore[reportUnusedFunction]
        said = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}"
            for one in error.errors()
        )
        return error_page(request.scope, 422, said)

    @app.exception_handler(EtudeError)
    async def _etude(request: Request, error: EtudeError) -> Response:  # pyright: ignore[reportUnusedFunction]
        status = 503 if isinstance(error, StoreError) else 422
        return error_page(request.scope, status, str(error))

    @app.exception_handler(Exception)
    async def _fault(request: Request, error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        del error  # the server prints it
        return error_page(request.scope, 500, WORDS[500])
