"""HTTP server of the fake arXiv: three interfaces, a settable clock, and fault injection.

It listens on this machine only. Besides arXiv's paths it has `/replay/clock`, `/replay/faults`
and `/replay/log`, so that another process can set the time and inject faults.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from etude.core.errors import PapersError
from etude.papers.calendar import EASTERN
from etude.papers.fake_arxiv import feeds, oai, query
from etude.papers.fake_arxiv.faults import Fault, Faults
from etude.papers.fake_arxiv.world import World

_WHOLE = ("429", "403", "500", "503", "reset", "html", "error", "error200")
_BODY = ("truncate", "cut", "slow")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request in the server's log, with monotonic times."""

    path: str
    agent: str
    begin: float
    end: float
    """Just before the last bytes of the answer were sent."""
    status: int


class ReplayServer:
    """A server in a thread, usable as a context manager.

    Args:
        world: the papers.
        now: the server's time; None uses the system clock.
        port: 0 for any free port.
        faults: initial faults.
        pages: page sizes of OAI-PMH.
        cap: maximum number of items of a feed.
    """

    def __init__(
        self,
        world: World,
        *,
        now: datetime | None = None,
        port: int = 0,
        faults: Iterable[Fault | str] = (),
        pages: oai.Pages | None = None,
        cap: int = feeds.CAP,
    ) -> None:
        self.world, self.now, self.cap = world, now, cap
        self.pages = pages or oai.Pages()
        self.faults = Faults(_fault(of) for of in faults)
        self.log: list[Asked] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"replay": self})
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError as error:
            raise PapersError(f"port {port} cannot be used: {error.strerror or error}") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def address(self) -> str:
        """The URL of the server; the value for `ETUDE_ARXIV`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def moment(self) -> datetime:
        """Return the server's time."""
        return self.now or datetime.now(UTC)

    def spoil(self, *faults: Fault | str) -> None:
        """Inject faults, as objects or in text form."""
        self.faults.add(*(_fault(of) for of in faults))

    def start(self) -> ReplayServer:
        """Start serving."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> ReplayServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _fault(of: Fault | str) -> Fault:
    return Fault.parse(of) if isinstance(of, str) else replace(of)


class _Handler(BaseHTTPRequestHandler):
    replay: ReplayServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's
        """Write nothing: requests are recorded in `log`."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        moment = (
            self.replay.moment() if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
        )
        return format_datetime(moment.astimezone(UTC), usegmt=True)

    def do_GET(self) -> None:
        self._answer(urlsplit(self.path).query)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, 1 << 20)).decode("utf-8", "replace")
        self._answer(body)

    def _answer(self, text: str) -> None:
        self._begin, self._status = time.monotonic(), 0
        path = urlsplit(self.path).path
        self._noted = path.startswith("/replay/")
        try:
            with suppress(ConnectionError, TimeoutError):
                self._route(path, parse_qsl(text, keep_blank_values=True))
        finally:
            self._note()

    def _note(self) -> None:
        """Record the request in the log, once.

        Called before the last bytes are sent, so that a client that has read them finds it.
        """
        if self._noted:
            return
        self._noted = True
        agent = self.headers.get("User-Agent", "")
        with self.replay.lock:
            self.replay.log.append(
                Asked(self.path, agent, self._begin, time.monotonic(), self._status)
            )

    def _route(self, path: str, asked: list[tuple[str, str]]) -> None:
        replay, moment = self.replay, self.replay.moment()
        if path.startswith("/replay/"):
            self._control(path, asked)
            return
        where, answer = self._interface(path, asked, moment)
        if answer is None:
            self._send(404, b"not found\n", "text/plain")
            return
        fault = replay.faults.take(where, allowed=_WHOLE)
        if fault is not None:
            self._fail(where, fault, moment)
            return
        with replay.lock:
            status, body, headers = answer()
        spoilt = replay.faults.take(where, allowed=_BODY) if body else None
        kind = "application/rss+xml" if path.startswith("/rss") else "application/xml"
        self._send(status, body, kind, headers, spoilt)

    def _interface(
        self, path: str, asked: list[tuple[str, str]], moment: datetime
    ) -> tuple[str, Callable[[], tuple[int, bytes, dict[str, str]]] | None]:
        replay = self.replay
        form, _, rest = path.strip("/").partition("/")
        if form in {"rss", "atom"}:
            return "rss", lambda: self._feed(form, unquote(rest), moment)
        if path in {"/oai", "/oai2"}:

            def records() -> tuple[int, bytes, dict[str, str]]:
                token = any(name == "resumptionToken" for name, _ in asked)
                pages = replace(
                    replay.pages,
                    expired=token and self._does("oai", "expired"),
                    twice=self._does("oai", "twice"),
                )
                return 200, oai.answer(replay.world, asked, moment, pages, replay.address), {}

            return "oai", records
        if path == "/api/query":

            def results() -> tuple[int, bytes, dict[str, str]]:
                arguments = dict(asked)
                counted = replay.faults.standing("query", "total")
                later = (arguments.get("start") or "0") != "0"
                wrong = query.Wrong(
                    empty=later and self._does("query", "empty"),
                    shuffle=self._does("query", "shuffle"),
                    missing=bool(arguments.get("id_list")) and self._does("query", "missing"),
                    total=int(counted.value or 0) if counted else None,
                )
                return *query.answer(replay.world, arguments, moment, wrong), {}

            return "query", results
        return "", None

    def _does(self, where: str, kind: str) -> bool:
        return self.replay.faults.standing(where, kind) is not None

    def _feed(self, form: str, names: str, moment: datetime) -> tuple[int, bytes, dict[str, str]]:
        faults = self.replay.faults
        shown = feeds.Shown(
            stale=faults.standing("rss", "stale", names) is not None,
            lag=self._does("rss", "lag"),
            empty=self._does("rss", "empty"),
            cap=self.replay.cap,
        )
        status, body = feeds.feed(
            self.replay.world, form, names, moment, shown, self.replay.address
        )
        if status != 200:
            return status, body, {}
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        local = moment.astimezone(EASTERN)
        midnight = datetime.combine(local.date() + timedelta(days=1), time_of_day(), EASTERN)
        age = int((midnight - local).total_seconds())
        headers = {"ETag": etag, "Cache-Control": f"max-age={age}"}
        if self.headers.get("If-None-Match") == etag:
            return 304, b"", headers
        return 200, body, headers

    def _fail(self, where: str, fault: Fault, moment: datetime) -> None:
        if fault.kind == "reset":
            self._reset()
        elif fault.kind == "html":
            self._send(200, b"<html><body><p>Please wait<br></body></html>", "text/html")
        elif fault.kind in {"error", "error200"}:
            if where == "oai":
                error = [("verb", "ListRecords"), ("set", "none"), ("metadataPrefix", "arXivRaw")]
                body = oai.answer(
                    self.replay.world, error, moment, self.replay.pages, self.replay.address
                )
                self._send(200, body, "application/xml")
            elif where == "query":
                status = 200 if fault.kind == "error200" else 400
                body = query.error_feed("start must be an integer", moment)
                self._send(status, body, "application/atom+xml")
            else:
                _, body = feeds.feed(
                    self.replay.world, "rss", "zz", moment, feeds.Shown(), self.replay.address
                )
                self._send(400, body, "application/rss+xml")
        else:
            headers: dict[str, str] = {}
            if fault.value == "date":
                later = moment.astimezone(UTC) + timedelta(seconds=5)
                headers["Retry-After"] = format_datetime(later, usegmt=True)
            elif fault.value:
                headers["Retry-After"] = fault.value
            text = {"429": b"Rate exceeded.", "403": b"Access denied"}.get(fault.kind, b"Error")
            self._send(int(fault.kind), text, "text/plain", headers)

    def _reset(self) -> None:
        self._note()
        # A linger time of 0 makes the kernel send a reset instead of an orderly close.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str,
        headers: dict[str, str] | None = None,
        spoilt: Fault | None = None,
    ) -> None:
        self._status = status
        length = len(body)
        if spoilt is not None and spoilt.kind == "truncate":
            body = body[: length * 2 // 3]
            length = len(body)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(length))
        slow = spoilt.value or 1 if spoilt is not None and spoilt.kind == "slow" else None
        if slow is None:
            self._note()
        self.end_headers()
        if spoilt is not None and spoilt.kind == "cut":
            self.wfile.write(body[: length // 2])
            self.wfile.flush()
            self._reset()
        elif slow is not None:
            step = max(1, length // 20)
            for start in range(0, length, step):
                time.sleep(float(slow))
                if start + step >= length:
                    self._note()
                self.wfile.write(body[start : start + step])
                self.wfile.flush()
        else:
            self.wfile.write(body)

    def _control(self, path: str, asked: list[tuple[str, str]]) -> None:
        replay = self.replay
        try:
            for name, value in asked:
                if path == "/replay/clock" and name == "now":
                    replay.now = datetime.fromisoformat(value)
                    if replay.now.tzinfo is None:
                        replay.now = replay.now.replace(tzinfo=UTC)
                elif path == "/replay/faults" and name == "add":
                    replay.spoil(value)
                elif path == "/replay/faults" and name == "clear":
                    replay.faults.clear()
        except (ValueError, PapersError) as error:
            self._send(400, f"{error}\n".encode(), "text/plain")
            return
        told: dict[str, Any] = {
            "now": replay.moment().isoformat(),
            "papers": len(replay.world.papers),
            "requests": len(replay.log),
        }
        if path == "/replay/log":
            with replay.lock:
                told["log"] = [f"{of.status} {of.path}" for of in replay.log]
        self._send(200, f"{json.dumps(told)}\n".encode(), "application/json")
