"""The pages of all rooms, without a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from etude.web.pages import markdown
from etude.web.rooms import ROOMS

PATHS = [room.path for room in ROOMS]


@pytest.mark.parametrize("path", PATHS)
def test_each_room_has_a_page_with_kind_title_and_sentence(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    page = answer.text
    assert page.count("<h1>") == page.count("<main") == page.count('class="lede"') == 1
    assert 'href="#main">Skip' in page
    assert page.count('aria-current="page"') >= 1
    assert answer.headers["cache-control"] == "no-store"


def test_reading_pages_writes_nothing(web, client):
    from sqlalchemy import event

    written: list[str] = []

    def listen(_connection, _cursor, statement, *_):
        if statement.split()[0].upper() not in ("SELECT", "PRAGMA", "BEGIN", "COMMIT"):
            written.append(statement)

    event.listen(web.bench.engine, "before_cursor_execute", listen)
    try:
        for route in web.app.routes:
            if "GET" in route.methods and "{" not in route.path and route.path != "/events":
                client.get(route.path)
        client.get("/practise/create-tensordataset")
    finally:
        event.remove(web.bench.engine, "before_cursor_execute", listen)
    assert written == []


def test_a_damaged_run_is_one_row_among_the_others(client):
    page = client.get("/lab").text
    assert "Its figures cannot be read" in page
    assert page.count("<tr>") == 4  # the head, and three runs


@pytest.mark.parametrize(
    ("path", "status"), [("/no", 404), ("/practise/no", 404), ("/papers?shelf=no", 404)]
)
def test_errors_are_pages_that_say_what_to_do(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status
    assert "<h1>There is no such page</h1>" in answer.text
    assert 'href="/"' in answer.text


def test_a_method_that_a_page_does_not_take_is_an_error_page(web, client):
    (cookie,) = client.cookies.values()
    headers = {
        "Origin": web.address,
        "X-CSRF-Token": web.sessions.read(cookie).csrf,
    }
    answer = client.post("/lab", headers=headers)
    assert answer.status_code == 405
    assert "<h1>" in answer.text


def test_a_fault_is_a_page_without_its_traceback(client, monkeypatch):
    def fault(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("etude.web.rooms.lab.routes.list_facts", fault)
    answer = client.get("/lab")
    assert answer.status_code == 500
    assert "This page failed" in answer.text
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_what_asks_for_json_gets_errors_as_json(client):
    answer = client.get("/no", headers={"Accept": "application/json"})
    assert answer.json()["error"] == "There is no such page"


def test_built_files_are_named_by_the_manifest_alone(client):
    page = client.get("/").text
    for name in ("app-", "events-worker-"):
        assert f"/static/{name}" in page
    for path in ("/static/manifest.json", "/static/..%2fmanifest.json", "/static/app.js"):
        assert client.get(path).status_code in (404, 401)


def test_markdown_has_no_html_and_no_scripts_in_links():
    page = markdown("# A <b>b</b>\n\n[x](javascript:alert(1)) <script>1</script>\n\n`a<b`")
    assert "<b>" not in page
    assert "<script" not in page
    assert 'href="javascript' not in page
    assert "<code>a&lt;b</code>" in page


def test_the_server_imports_neither_torch_nor_numpy(tmp_path: Path):
    code = f"""
import os, sys
os.environ["ETUDE_HOME"] = {str(tmp_path)!r}
from pathlib import Path
from fastapi.testclient import TestClient
from etude.app.workbench import open_workbench
from etude.web import server
from etude.web.app import create_app
from etude.web.rooms import ROOMS
from etude.web.session import Sessions, launch_token
app = create_app(open_workbench(runs=Path({str(tmp_path)!r})), Sessions(b"a", b"b"), port=80)
with TestClient(app, "http://127.0.0.1") as client:
    client.get("/open?token=" + launch_token(b"b"))
    for path in [room.path for room in ROOMS] + ["/practise/create-tensordataset"]:
        assert client.get(path).status_code == 200, path
print([name for name in ("torch", "numpy", "transformers", "ray") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
