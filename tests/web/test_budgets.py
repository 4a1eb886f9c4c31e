"""How many bytes a page costs: what is sent, packed, on a first visit with an empty cache."""

from __future__ import annotations

import re

import pytest

from etude.web.assets import manifest
from etude.web.rooms import ROOMS

NORMAL, LAB, EDITOR = 60_000, 100_000, 190_000
FONT = 60_000
"""The font of formulas is counted apart: it is fetched once, by pages with formulas."""

PAGES = [
    *((room.path, LAB if room.name == "lab" else NORMAL) for room in ROOMS),
    ("/today/runs", NORMAL),
    ("/lab/new", LAB),
    ("/practise/collections/llm", NORMAL),
    ("/practise/tracks/rows-to-loss", NORMAL),
    ("/practise/create-tensordataset", EDITOR),
    ("/practise/create-tensordataset/history", EDITOR),
]


def sent(client, path: str) -> int:
    """Return the bytes of an answer's body as it is sent."""
    with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.status_code == 200, path
        large = int(answer.headers.get("content-length", 10**6)) > 1000
        if large and not path.endswith(".woff2"):
            assert answer.headers["content-encoding"] == "gzip", path
        return sum(len(part) for part in answer.iter_raw())


@pytest.mark.parametrize(("path", "most"), PAGES)
def test_a_page_with_all_it_asks_for_stays_within_its_budget(client, path, most):
    page = client.get(path).text
    files = set(re.findall(r'/static/[^"\s]+', page))
    assert any("app-" in file for file in files)
    for sheet in [file for file in files if file.endswith(".css")]:
        # What a style sheet asks for, except the font of formulas.
        asked = re.findall(r"url\(\"?([^\")]+)", client.get(sheet).text)
        assert all("etude-math" in one or one.startswith("data:") for one in asked)
    total = sent(client, path) + sum(sent(client, file) for file in files)
    assert total <= most, f"{path}: {total} bytes"


def test_the_font_of_formulas_has_a_budget_of_its_own(client):
    assert sent(client, f"/static/{manifest()['etude-math.woff2']}") <= FONT


def test_what_need_not_be_packed_is_sent_as_it_is_where_a_browser_does_not_ask(client):
    answer = client.get("/", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in answer.headers
    assert "<h1>" in answer.text
