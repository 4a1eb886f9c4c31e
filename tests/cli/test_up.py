"""`etude up` as a process: its port, its lock, the way in, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx
import psutil
import pytest

from etude.web.server import FIRST_PORT, WebError, listen

pytestmark = pytest.mark.integration


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@contextmanager
def up(home, *options):
    """Start it, and yield its process and what it printed up to the link; kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "up", "--no-browser", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=home.parent,
        env={**os.environ, "ETUDE_HOME": str(home), "ETUDE_DATABASE": ""},
    )
    try:
        said = ""
        while "token=" not in said and (line := process.stdout.readline()):
            said += line
        yield process, said
    finally:
        process.kill()
        process.wait()


def link(said):
    return re.search(r"http://\S+/open\?token=\S+", said)[0]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_lets_in_by_its_link_and_ends_in_the_middle_of_a_stream(home, how):
    with up(home) as (process, said), httpx.Client(follow_redirects=True) as client:
        page = client.get(link(said))
        assert page.status_code == 200
        assert "Solve Create TensorDataset" in page.text
        base = str(page.url).rstrip("/")
        assert "token" not in base
        problem = client.get(f"{base}/practise/create-tensordataset").text
        csrf = re.search(r'name="csrf" value="(\w+)"', problem)[1]
        saved = client.post(
            f"{base}/practise/create-tensordataset/draft",
            data={"csrf": csrf, "source": "def f(): ...", "tab": "a" * 16, "revision": 0},
            headers={"Origin": base},
        )
        assert saved.status_code == 200
        judges = list(psutil.Process(process.pid).children())
        assert any("judge" in judge.cmdline() for judge in judges)
        with client.stream("GET", f"{base}/events?since=runs") as stream:
            lines = stream.iter_lines()
            assert "retry: 3000" in (next(lines), next(lines))
            process.send_signal(how)
            rest = process.stdout.read()
        assert process.wait() == 0
        assert "has ended" in rest
        assert "Traceback" not in rest
        assert not (home / "web" / "server.json").exists()
        assert psutil.wait_procs(judges, timeout=60)[1] == []


def test_secrets_are_readable_by_their_owner_alone(home):
    with up(home):
        for name in ("server.json", "session.key"):
            assert (home / "web" / name).stat().st_mode & 0o077 == 0, name


def test_a_second_one_says_which_is_there_and_gives_a_link_into_it(home):
    with up(home) as (process, first), up(home, "--port", "9999") as (second, said):
        assert second.wait() == 0
        port = json.loads((home / "web" / "server.json").read_text())["port"]
        assert f"runs already at http://127.0.0.1:{port}/" in said
        assert f"process {process.pid}" in said
        assert link(said) != link(first)
        with httpx.Client(follow_redirects=True) as client:
            assert client.get(link(said)).status_code == 200


def test_after_a_kill_another_starts_and_the_old_cookie_still_opens_it(home):
    with httpx.Client(follow_redirects=True) as client:
        with up(home) as (process, said):
            page = client.get(link(said))
            port = page.url.port
            process.send_signal(signal.SIGKILL)
            process.wait()
        with up(home, "--port", str(port)) as (_, said):
            assert "runs already" not in said
            assert client.get(page.url).status_code == 200


def test_a_taken_port_gives_way_to_the_next_and_is_said(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with up(home, "--port", str(port)) as (_, said):
            assert f"Port {port} is taken" in said
            assert f"127.0.0.1:{port}/" not in said


def test_only_this_machine_is_answered():
    with listen("127.0.0.1", None) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        assert port >= FIRST_PORT


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may use any port")
def test_a_port_of_the_system_is_refused_in_one_line():
    with pytest.raises(WebError, match="above 1023"):
        listen("127.0.0.1", 80)


def test_on_the_network_a_password_is_asked_first_and_then_lets_in(home):
    password = "a long password"
    process = subprocess.Popen(
        [sys.executable, "-m", "etude", "up", "--no-browser", "--lan"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=home.parent,
        env={**os.environ, "ETUDE_HOME": str(home), "ETUDE_DATABASE": ""},
        # Without a terminal of its own, it reads the password from standard input.
        start_new_session=True,
    )
    try:
        threading.Thread(
            target=lambda: (
                process.stdin.write(f"short\nshort\n{password}\n{password}\n"),
                process.stdin.flush(),
            )
        ).start()
        said = ""
        while "token=" not in said and (line := process.stdout.readline()):
            said += line
        assert "shorter than 10" in said
        port = int(re.search(r"127\.0\.0\.1:(\d+)", said)[1])
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base) as client:
            assert client.get("/lab").headers["location"] == "/login"
            assert "current-password" in client.get("/login").text
            own = {"Origin": base}
            wrong = client.post("/login", data={"password": "no"}, headers=own)
            assert wrong.status_code == 403
            assert "not the password" in wrong.text
            foreign = client.post(
                "/login", data={"password": password}, headers={"Origin": "http://evil.example"}
            )
            assert foreign.status_code == 403
            right = client.post("/login", data={"password": password}, headers=own)
            assert right.status_code == 303
            assert client.get("/lab").status_code == 200
            client.cookies.clear()
            for _ in range(10):
                last = client.post("/login", data={"password": "no"}, headers=own)
            assert last.status_code == 429
        name = socket.gethostname().lower()
        assert httpx.get(f"{base}/login", headers={"Host": f"{name}:{port}"}).status_code == 200
        evil = httpx.get(f"{base}/login", headers={"Host": f"evil.example:{port}"})
        assert evil.status_code == 403
    finally:
        process.kill()
        process.wait()
    stored = (home / "web" / "password.json").read_text()
    assert password not in stored


def test_a_missing_extra_is_one_line(home, monkeypatch, etude_command):
    def find(name, *_):
        return None if name == "fastapi" else object()

    monkeypatch.setattr("etude.core.extras.find_spec", find)
    done = etude_command("up", "--no-browser", ETUDE_HOME=str(home))
    assert done.returncode == 2
    assert "pip install 'etude[web]'" in done.stderr
