"""The way in: the launch link that `etude up` opens, and the password page of `--lan`."""

from __future__ import annotations

import time
from collections import deque
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from etude.web.errors import error_page
from etude.web.pages import render
from etude.web.security import cookie_name, public
from etude.web.session import SESSION_SECONDS, Password, Sessions

TRIES, WINDOW = 10, 60.0
"""Passwords that may be tried in so many seconds, by all together."""

router = APIRouter()


@router.get("/open")
@public
def open_by_link(request: Request, token: str = "") -> Response:
    """Let in a browser that has a launch token, and take the token out of its address bar."""
    sessions: Sessions = request.app.state.sessions
    if request.state.session is None and not sessions.accept(token):
        return error_page(
            request.scope,
            403,
            "This link was used before, or is older than ten minutes. Run `etude up` again: it "
            "opens the running server with a new one.",
        )
    return _let_in(request, sessions)


@router.get("/login")
@public
def ask(request: Request) -> Response:
    """Ask for the password."""
    if request.state.session is not None or request.state.password is None:
        return RedirectResponse("/", 303)
    return render(request, "login.html", error="")


@router.post("/login")
@public
async def log_in(request: Request, password: Annotated[str, Form(max_length=1000)]) -> Response:
    """Let in a browser whose user knows the password."""
    chosen: Password | None = request.state.password
    if chosen is None:
        return RedirectResponse("/", 303)
    tries: deque[float] = request.app.state.tries
    now = time.monotonic()
    while tries and tries[0] < now - WINDOW:
        tries.popleft()
    if len(tries) >= TRIES:
        return render(
            request, "login.html", 429, error="Too many tries. Wait a minute, then try again."
        )
    tries.append(now)
    if not await to_thread.run_sync(chosen.matches, password):
        return render(request, "login.html", 403, error="This is not the password.")
    return _let_in(request, request.app.state.sessions)


def _let_in(request: Request, sessions: Sessions) -> Response:
    answer = RedirectResponse("/", 303, headers={"Referrer-Policy": "no-referrer"})
    if request.state.session is None:
        answer.set_cookie(
            cookie_name(request.app.state.port),
            sessions.begin(),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
        )
    return answer
