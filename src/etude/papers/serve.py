"""Local read-only HTTP server of feeds.

    /                     a page that lists the feeds
    /all.rss              the newest papers; .rss, .atom and .json throughout
    /<shelf>.rss          the papers of a shelf
    /tags/<tag>.rss       the papers with a tag, last tagged first
    /searches/<name>.rss  the results of a saved search, newest first
    /for-you.rss          the last days' papers in the order of the user's interest

It listens on this machine only, unless configured otherwise. There it accepts only local host
names, so that no web page can read it by DNS rebinding. No request path is used as a file path.
Feeds are rebuilt at most once a minute; a client that has the current one receives 304.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from email.utils import format_datetime
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

from etude.core.errors import EtudeError, PapersError
from etude.papers.attribution import NOT_ARXIV, THANKS
from etude.papers.feed_bodies import FRESH, Body, FeedBodies, is_current
from etude.papers.feeds import FEEDS
from etude.papers.library import Library
from etude.papers.words import shown

if TYPE_CHECKING:
    from etude.papers.reader import Reader
    from etude.papers.search import Index
    from etude.papers.settings import Settings

MOST_AT_ONCE = 16
"""Maximum concurrent requests; further ones receive 503."""
SLOWEST = 10.0
"""Timeout in seconds for sending a request and receiving the response."""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>Etude: feeds of papers</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}}
td{{padding:.2rem 1rem .2rem 0;overflow-wrap:anywhere}}footer{{margin-top:2rem;opacity:.7}}</style>
</head><body><h1>Feeds of papers</h1><table>{rows}</table><footer>{thanks}</footer></body></html>
"""


class FeedServer(ThreadingHTTPServer):
    """Feed server; as a context manager it runs in a background thread."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        library: Library,
        index: Index | None,
        settings: Settings,
        reader: Reader | None,
        host: str = "127.0.0.1",
        port: int = 8765,
        *,
        show: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Bind the address.

        Args:
            library: The papers.
            index: Index for saved searches, which are omitted without it.
            settings: Defines the shelves.
            reader: User whose tags, searches and interest are served; None for shelves only.
            host: Address to listen on.
            port: 0 for any free port.
            show: Called with a line for each request.
            clock: Seconds since 1970.

        Raises:
            PapersError: the address cannot be used.
        """
        self.library, self.index, self.settings, self.reader = library, index, settings, reader
        self.show, self.clock = show, clock
        self.feeds = FeedBodies(library, index, settings, reader, clock=clock)
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._thread: threading.Thread | None = None
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise PapersError(
                f"cannot listen on {host}, port {port}: "
                f"{getattr(error, 'strerror', None) or error}; choose another with --port"
            ) from error
        self.host = host
        self.local = _is_local(host)

    def server_bind(self) -> None:
        """Bind the address without a reverse DNS look-up, which may be slow."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def address(self) -> str:
        """Return the URL of the list of feeds, without a trailing slash."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if fewer than `MOST_AT_ONCE` are busy."""
        if not self._free.acquire(blocking=False):
            try:
                request.settimeout(1.0)
                request.sendall(
                    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n"
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                )
            except OSError:
                pass
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and release the thread's slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's
        """Ignore clients that disconnect; show other errors in a line."""
        import sys

        error = sys.exception()
        if self.show is not None and not isinstance(error, ConnectionError | TimeoutError):
            self.show(f"{type(error).__name__}: {shown(str(error))[:200]}")

    def __enter__(self) -> FeedServer:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        if self._thread is not None:
            self._thread.join()

    def body(self, path: str) -> Body | None:
        """Return the body of a path, or None."""
        if path == "/":
            return self.feeds.cached(path, self._index_page)
        return self.feeds.body(path.removeprefix("/"), f"{self.address}/", self.address + path)

    def _index_page(self) -> tuple[bytes, str]:
        rows = "".join(
            f"<tr><td>{escape(shown(one.title))}</td>"
            + "".join(f'<td><a href="/{escape(one.stem)}.{kind}">{kind}</a></td>' for kind in FEEDS)
            + "</tr>\n"
            for one in self.feeds.names()
        )
        page = _PAGE.format(rows=rows, thanks=escape(f"{THANKS} {NOT_ARXIV}"))
        return page.encode(), "text/html; charset=utf-8"


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Etude", ""
    timeout = SLOWEST

    def do_GET(self) -> None:
        self._answer(whole=True)

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's
        show = cast("FeedServer", self.server).show
        if show is not None:
            show(shown(format % args))

    def send_error(
        self,
        code: int,
        message: str | None = None,
        explain: str | None = None,  # noqa: ARG002 - the base's
    ) -> None:
        """Send an error as one line of plain text."""
        line = f"{code} {message or HTTPStatus(code).phrase}\n".encode("ascii", "replace")
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self._finish(line)

    def _answer(self, *, whole: bool) -> None:
        server = cast("FeedServer", self.server)
        # One request per connection, so that an idle client holds no thread.
        self.close_connection = True
        if server.local and not _is_local(_host_of(self.headers.get("Host", ""))):
            self.send_error(403, "this server accepts local requests only")
            return
        try:
            body = server.body(self.path.partition("?")[0])
        except EtudeError as error:
            self.send_error(503, shown(str(error)))
            return
        if body is None:
            self.send_error(404, "no such feed; / lists all feeds")
            return
        packed = "gzip" in self.headers.get("Accept-Encoding", "").lower()
        tag = f'"{body.tag}{"-gzip" if packed else ""}"'
        unchanged = is_current(
            body,
            tag,
            self.headers.get("If-None-Match"),
            self.headers.get("If-Modified-Since"),
        )
        self.send_response(304 if unchanged else 200)
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", format_datetime(body.changed, usegmt=True))
        self.send_header("Cache-Control", f"private, max-age={FRESH:.0f}")
        self.send_header("Vary", "Accept-Encoding")
        if unchanged:
            self.send_header("Connection", "close")
            self.end_headers()
            return
        self.send_header("Content-Type", body.media_type)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self._finish(body.packed if packed else body.content, whole=whole)

    def _finish(self, content: bytes, *, whole: bool = True) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if whole and self.command != "HEAD":
            self.wfile.write(content)


def _host_of(header: str) -> str:
    """Return the name in a Host header, without the port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _is_local(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    library: Library,
    index: Index | None,
    settings: Settings,
    reader: Reader | None,
    host: str = "127.0.0.1",
    port: int = 8765,
    *,
    show: Callable[[str], None] | None = None,
) -> None:
    """Serve feeds until Ctrl-C; see `FeedServer` for the arguments and errors."""
    server = FeedServer(library, index, settings, reader, host, port, show=show)
    try:
        if show is not None:
            show(f"feeds at {server.address}/, Ctrl-C to stop")
        server.serve_forever(0.2)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
