"""A server in a process of its own, which a test may kill."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.web.conftest import KEY, LAUNCH_KEY

from etude.web.session import launch_token

# Of its own for each process of tests: a port that was left for a moment may be taken by another.
PORT = 18700 + 20 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PROGRAM = """
    import sys
    from pathlib import Path
    from etude.app.workbench import open_workbench
    from etude.web.app import create_app
    from etude.web.server import listen, make_server
    from etude.web.session import Sessions
    runs, port, key, launch_key = sys.argv[1:]
    listener = listen("127.0.0.1", int(port))
    bench = open_workbench(runs=Path(runs))
    sessions = Sessions(key.encode(), launch_key.encode())
    app = create_app(bench, sessions, port=listener.getsockname()[1])
    print(listener.getsockname()[1], flush=True)
    make_server(app).run(sockets=[listener])
"""


class ServerProcess:
    """Serves a folder of runs; a session outlives it, as its key stays.

    Args:
        runs: the folder; the database is a file beside it.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.port = PORT
        self.start()

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def link(self) -> str:
        """Return a link that lets a browser in."""
        return f"{self.address}/open?token={launch_token(LAUNCH_KEY)}"

    def start(self) -> None:
        """Start it, on the port that it had before."""
        database = f"sqlite:///{self.runs.parent / 'own.sqlite3'}"
        words = [str(self.runs), str(self.port), KEY.decode(), LAUNCH_KEY.decode()]
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_PROGRAM), *words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ETUDE_DATABASE": database, "ETUDE_USER": "ada"},
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        """Kill it: no time to say goodbye."""
        self.process.kill()
        self.process.wait()
