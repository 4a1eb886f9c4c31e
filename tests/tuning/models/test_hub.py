from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from etude.tuning.models.hub import is_hub_id

pytestmark = pytest.mark.integration

COMMIT = "0123456789abcdef0123456789abcdef01234567"

# The hub client reads its environment when it is imported, so each case is a process.
LOADER = """
import sys
from etude.core.errors import ModelError

class Progress:
    bytes = 0
    def start(self, label, total, unit=""):
        print(label)
    def advance(self, n=1):
        self.bytes += n
    def finish(self):
        print(self.bytes)

action, name = sys.argv[1:]
try:
    if action == "pull":
        from etude.tuning.models.pull import pull

        print(pull(name, Progress()))
    elif action == "resolve":
        from etude.tuning.models.sources import resolve

        print(resolve(name).path)
    else:
        from etude.tuning.models.load import load_model
        from etude.tuning.config.sections.model import ModelSpec
        from etude.tuning.config.sections.quant import QuantSpec

        loaded = load_model(ModelSpec(id=name, dtype="float32"), QuantSpec())
        print(loaded.origin.path, len(loaded.tokenizer), loaded.origin.name)
except ModelError as error:
    print("error:", error)
"""


class Hub(BaseHTTPRequestHandler):
    """What the hub client asks for: a revision, its files, their sizes and contents."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - set on a subclass made for one test
    served: list[str] = []  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        file = path.rpartition(f"/resolve/{COMMIT}/")[2]
        if path.startswith("/api/models/owner/tiny/revision/"):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer(json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}))
        elif path.startswith("/api/models/owner/tiny/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": self.tag(content)}
                for name, content in self.files.items()
            ]
            self.answer(json.dumps(entries))
        elif path.startswith("/owner/tiny/resolve/") and file in self.files:
            if self.command == "GET":
                self.served.append(file)
            self.answer(self.files[file])
        elif "owner/gated" in path:
            self.answer("", 403, "GatedRepo")
        else:
            self.answer("", 404, "RepoNotFound")

    def answer(self, content: str | bytes, status: int = 200, error: str | None = None) -> None:
        content = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{self.tag(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    @staticmethod
    def tag(content: bytes) -> str:
        return hashlib.sha1(content).hexdigest()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tiny_llama: Callable[..., Path]) -> Iterator[tuple[str, type[Hub]]]:
    """A hub on this machine with one model, `owner/tiny`; its address and its handler."""
    folder = tiny_llama()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["pytorch_model.bin"] = b"pickled"
    files["onnx/config.json"] = b"{}"

    class TinyHub(Hub):
        served: list[str] = []  # noqa: RUF012

    TinyHub.files = files
    server = ThreadingHTTPServer(("127.0.0.1", 0), TinyHub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", TinyHub
    server.shutdown()
    server.server_close()
    thread.join()


def run(address: str, home: Path, action: str, name: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADER, action, name],
        env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_pull_brings_a_models_files_and_counts_their_bytes(
    hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    address, handler = hub
    label, counted, folder = run(address, tmp_path, "pull", "owner/tiny")
    wanted = set(handler.files) - {"pytorch_model.bin", "onnx/config.json"}

    assert label == "Downloading owner/tiny"
    assert set(handler.served) == wanted
    assert {path.name for path in Path(folder).iterdir()} == wanted
    assert int(counted) == sum(len(handler.files[name]) for name in wanted)


def test_a_hub_model_is_fetched_by_loading_it_and_then_needs_no_hub(
    hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    folder, tokens, name = run(hub[0], tmp_path, "load", "owner/tiny")[-1].split()

    assert (tokens, name) == ("512", "owner/tiny")
    nowhere = "http://127.0.0.1:9"
    assert run(nowhere, tmp_path, "resolve", "owner/tiny") == [folder]
    assert run(nowhere, tmp_path, "pull", "owner/tiny")[-1] == folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/gated", "error: owner/gated is gated: accept its terms"),
        ("owner/missing", "error: the hub has no model owner/missing, or it is private"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub: tuple[str, type[Hub]], tmp_path: Path, name: str, message: str
) -> None:
    *_, error = run(hub[0], tmp_path, "pull", name)

    assert error.startswith(message)


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    lines = run("http://127.0.0.1:9", tmp_path, "pull", "owner/tiny")

    assert len(lines) == 2
    assert lines[1].startswith("error: cannot reach the Hugging Face hub for owner/tiny (")
    assert "connect to the network" in lines[1]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("owner/name", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("a_b/c.d-1", True),
        ("name", False),
        ("a/b/c", False),
        ("a--b/c", False),
        ("a/..", False),
        ("../a", False),
        ("a/", False),
        ("a b/c", False),
    ],
)
def test_a_hub_id_is_owner_slash_name(name: str, is_one: bool) -> None:
    assert is_hub_id(name) is is_one
