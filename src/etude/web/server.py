"""The server of `etude up`: one for each data folder, on a free port, until Ctrl-C.

`ETUDE_HOME/web/` holds what it needs, readable by its owner alone: the key of sessions, the hash of
the password, and `server.json`, by which a second `etude up` finds the first one and opens it.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import psutil
import uvicorn

from etude.core.errors import EtudeError
from etude.core.paths import home
from etude.web.app import App
from etude.web.session import launch_token, write_private

FIRST_PORT = 8700
_PORTS = 50


class WebError(EtudeError):
    """The web app cannot be served here."""


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    pid: int
    started: float
    """When its process began, in seconds since 1970: process ids are used again."""
    port: int
    key: str
    """Signs its launch tokens, in hexadecimal."""
    runs: str

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}/"

    def launch_link(self) -> str:
        """Return a link that lets a browser in, once, within ten minutes."""
        return f"{self.address}open?token={launch_token(bytes.fromhex(self.key))}"


def folder() -> Path:
    """Return the folder of the server's own files, made if missing."""
    path = home() / "web"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def find_running() -> Running | None:
    """Return the server that runs on this data folder, if its process is there."""
    try:
        found = Running(**json.loads((folder() / "server.json").read_text("utf-8")))
        began = psutil.Process(found.pid).create_time()
    except (OSError, ValueError, TypeError, psutil.Error):
        return None
    return found if abs(began - found.started) < 2 else None


def announce(port: int, runs: Path) -> Running:
    """Write down that this process serves on a port."""
    pid = os.getpid()
    running = Running(
        pid, psutil.Process(pid).create_time(), port, secrets.token_hex(32), str(runs)
    )
    write_private(folder() / "server.json", json.dumps(asdict(running)))
    return running


def withdraw() -> None:
    """Remove what `announce` wrote."""
    (folder() / "server.json").unlink(missing_ok=True)


def listen(host: str, port: int | None) -> socket.socket:
    """Return a listening socket on a port, or on the next one that is free.

    Raises:
        WebError: none of the fifty from there is free, or none may be used.
    """
    first = FIRST_PORT if port is None else port
    for number in range(first, min(first + _PORTS, 65536)):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(256)
        except PermissionError:
            listener.close()
            raise WebError(f"port {number} may not be used: choose one above 1023") from None
        except OSError:
            listener.close()
            continue
        return listener
    raise WebError(f"no port from {first} to {first + _PORTS - 1} is free")


def own_names() -> list[str]:
    """Return the names and addresses by which other machines may call this one."""
    name = socket.gethostname().lower()
    addresses = [
        one.address.partition("%")[0]
        for interface in psutil.net_if_addrs().values()
        for one in interface
        if one.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return [name, f"{name}.local", *addresses]


class _Server(uvicorn.Server):
    """Ends the streams of events when it is asked to stop; they would hold it up."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop."""
        self._stopping()
        super().handle_exit(sig, frame)
        # uvicorn raises the signal again once it has ended. Ctrl-C here is no failure, and SIGTERM
        # would end this process before it has ended what works for it.
        self._captured_signals.clear()


def serve(app: App, listeners: Iterable[socket.socket], ready: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        app: from `create_app`.
        listeners: listening sockets; closed at the end.
        ready: called in a thread of its own, once the sockets accept requests.
    """
    # Sockets listen already: what the browser asks before the loop runs waits there.
    threading.Thread(target=ready, daemon=True).start()
    make_server(app).run(sockets=list(listeners))


def make_server(app: App) -> uvicorn.Server:
    """Return the server of an app, not yet running."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_graceful_shutdown=3,
    )
    return _Server(config, app.inner.state.hub.close)
