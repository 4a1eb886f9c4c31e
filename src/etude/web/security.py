"""The gate: one ASGI layer before every request and every websocket, which denies by default.

In this order:

1. **Host** is one of the server's own names and its port: a foreign name that resolves to this
   machine (DNS rebinding) is refused before anything is looked at.
2. **Origin**, for unsafe methods and websockets: `Sec-Fetch-Site` is `same-origin` or `none`, or,
   where a browser sends none, `Origin` is exactly this server's.
3. **Session**, unless the route says that it is public (`@public`). A path that no route has needs
   a session, too.
4. **Length**: a body that says it is larger than its route takes is refused before it is read
   (`max_body_size` of the route, `LARGEST_FORM` without; FastAPI counts what says nothing).
5. **CSRF token**, for unsafe methods in a session: the header `X-CSRF-Token`, or the field `csrf`,
   which is the first one in a form with files.

There is no CORS. Every answer, an error's too, has the headers of `HEADERS` and a content security
policy without inline scripts and styles.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from etude.web.session import Session, Sessions, csrf_matches

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LARGEST_FORM = 1_000_000
"""Bytes of a form without files."""
_FIRST_FIELD = 65_536
"""Bytes of a form with files within which its CSRF token must have come."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Under `no-referrer` the forms of these very pages would come with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Refuse = Callable[[Scope, int, str], Response]
"""Returns the page for a refusal: scope, status, reason."""


def public(endpoint: Endpoint) -> Endpoint:
    """Mark a route's function as reachable without a session."""
    endpoint.__dict__["public"] = True
    return endpoint


def is_public(route: APIRoute) -> bool:
    """Return whether a route is reachable without a session."""
    return bool(getattr(route.endpoint, "public", False))


def style_nonce(scope: Scope) -> str:
    """Return a nonce that lets this one page make style elements: for the code editor.

    The answer's policy has a nonce only if this was called.
    """
    return scope["state"].setdefault("style_nonce", secrets.token_urlsafe(16))


def policy(nonce: str | None = None) -> str:
    """Return the content security policy of a page."""
    style = f"'self' 'nonce-{nonce}'" if nonce else "'self'"
    return (
        f"default-src 'none'; script-src 'self'; style-src {style}; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


class Gate:
    """The layer in front of the app.

    Args:
        app: what is protected.
        routes: all routes of `app`, which say whether they are public.
        hosts: names and addresses of this server, without a port, lower case.
        port: that it listens on.
        sessions: check cookies.
        refuse: makes the page of a refusal.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[APIRoute],
        hosts: Iterable[str],
        port: int,
        sessions: Sessions,
        refuse: Refuse,
    ) -> None:
        self._app, self._routes, self._refuse = app, routes, refuse
        self._sessions, self._cookie = sessions, cookie_name(port)
        self._hosts = frozenset((host, port) for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        send = _with_headers(scope, send)
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None and scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            receive, refusal = await self._check_token(scope, headers, receive)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # websocket.connect
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        else:
            await self._refuse(scope, *refusal)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return status and reason of a refusal; None, and the session in the scope, if none."""
        host = headers.getlist("host")
        if len(host) != 1 or _host_and_port(host[0]) not in self._hosts:
            return 403, "host"
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if unsafe and not _from_own_page(scope, headers, host[0]):
            return 403, "origin"
        session = self._session(headers)
        scope["state"]["session"] = session
        route = self._route(scope)
        if session is None and not (route is not None and is_public(route)):
            return 401, "session"
        said = headers.get("content-length", "0")
        most = LARGEST_FORM if route is None else route.max_body_size or LARGEST_FORM
        if not said.isdigit() or int(said) > most:
            return 413, "body"
        return None

    def _route(self, scope: Scope) -> APIRoute | None:
        if scope["type"] != "http":
            return None
        for route in self._routes:
            if route.matches(scope)[0] == Match.FULL:
                return route
        return None

    def _session(self, headers: Headers) -> Session | None:
        try:
            cookies = SimpleCookie("; ".join(headers.getlist("cookie")))
        except CookieError:
            return None
        morsel = cookies.get(self._cookie)
        return self._sessions.read(morsel.value) if morsel else None

    async def _check_token(
        self, scope: Scope, headers: Headers, receive: Receive
    ) -> tuple[Receive, tuple[int, str] | None]:
        """Check the CSRF token; return the body's receiver, which begins at the start again."""
        session: Session | None = scope["state"]["session"]
        if session is None:  # a public route: its page's origin was checked
            return receive, None
        token = headers.get("x-csrf-token")
        if token is None:
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "application/x-www-form-urlencoded":
                body, receive, whole = await _read_ahead(receive, LARGEST_FORM)
                if not whole:
                    return receive, (413, "body")
                token = parse_qs(body.decode("latin-1"), max_num_fields=1000).get("csrf", [""])[0]
            elif kind == "multipart/form-data":
                body, receive, _ = await _read_ahead(receive, _FIRST_FIELD, enough=_first_field)
                token = _first_field(body)
        if token is None or not csrf_matches(session, token):
            return receive, (403, "token")
        return receive, None


def cookie_name(port: int) -> str:
    """Return the name of the session's cookie: cookies do not tell ports apart."""
    return f"etude-session-{port}"


def _host_and_port(host: str) -> tuple[str, int] | None:
    """Return name and port of a Host header or an origin's authority; None if it is malformed."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", host)
    if match is None:
        return None
    return match[1].strip("[]").lower(), int(match[2] or 80)


def _from_own_page(scope: Scope, headers: Headers, host: str) -> bool:
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return False
    if origin is not None:
        parts = urlsplit(origin)
        return (
            parts.scheme == "http"
            and _host_and_port(parts.netloc) == _host_and_port(host)
            and not (parts.path or parts.query or parts.fragment)
        )
    return site is not None and scope["type"] == "http"


async def _read_ahead(
    receive: Receive, most: int, enough: Callable[[bytes], str | None] | None = None
) -> tuple[bytes, Receive, bool]:
    """Read up to `most` bytes of a body.

    Returns:
        What was read; a receiver of the whole body; whether it was read to its end.
    """
    messages: list[Message] = []
    body, more = b"", True
    while more and len(body) <= most and not (enough is not None and enough(body) is not None):
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return body, again, not more and len(body) <= most


def _first_field(body: bytes) -> str | None:
    """Return the text of a form's first field, if that is the token and complete."""
    match = re.match(
        rb"--[^\r\n]{1,200}\r\n"
        rb'Content-Disposition: form-data; name="csrf"\r\n\r\n'
        rb"([0-9a-f]{64})\r\n",
        body,
        flags=re.IGNORECASE,
    )
    return match[1].decode("ascii") if match else None


def _with_headers(scope: Scope, send: Send) -> Send:
    """Add the security headers to an answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            nonce = scope["state"].get("style_nonce")
            headers.setdefault("Content-Security-Policy", policy(nonce))
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
