"""The pages of Papers and what their forms do, without a browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape

import pytest
from tests.web.conftest import PORT
from tests.web.rooms.papers_data import HOSTILE, installation

from etude.papers.exchange import read

OWN = f"http://127.0.0.1:{PORT}"
FIRST, HOSTILE_ID = "2604.00001", "2604.00080"
PAGES = [
    "/papers",
    "/papers?day=2026-04-02",
    "/papers?shelf=vision&order=newest",
    "/papers?replaced=1",
    "/papers?day=2026-04-04",
    "/papers/search",
    "/papers/search?q=yolo",
    "/papers/search?q=walruses",
    f"/papers/paper/{HOSTILE_ID}",
    f"/papers/beside/{HOSTILE_ID}",
    "/papers/liked",
    "/papers/noted",
    "/papers/tags",
    "/papers/following",
    "/papers/exchange",
    "/papers/feeds",
    "/papers/health",
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with installation(tmp_path_factory.mktemp("papers")) as bench:
        yield bench


@pytest.fixture
def post(web, client):
    """Send a form as a page of the room would."""
    (cookie,) = client.cookies.values()
    token = web.sessions.read(cookie).csrf

    def send(path, headers=None, **fields):
        files = fields.pop("files", None)
        return client.post(
            path,
            headers={"Origin": OWN, "X-CSRF-Token": token, **(headers or {})},
            data=fields,
            files=files,
        )

    return send


@pytest.fixture(autouse=True)
def forget(bench):
    """Leave nothing that a test gave."""
    yield
    reader = bench.reader
    for key in reader.opinions():
        reader.unlike(key)
    for tag, ids in reader.tags().items():
        for key in ids:
            reader.untag(key, tag)
    for key in reader.notes():
        reader.note(key, "")
    for author in reader.following():
        reader.unfollow(author)
    for search in reader.searches():
        reader.drop_search(search.name)


def ids(page):
    return re.findall(r'<li class="paper[^"]*" data-paper="([^"]+)"', page)


@pytest.mark.parametrize("path", PAGES)
def test_each_page_answers_and_no_text_of_a_paper_is_html(bench, client, path):
    bench.reader.like(HOSTILE_ID)
    bench.reader.tag(HOSTILE_ID, HOSTILE)
    bench.reader.note(HOSTILE_ID, HOSTILE)
    bench.reader.follow(f"Eve {HOSTILE}")
    bench.reader.save_search(HOSTILE, f"walruses {HOSTILE}")
    answer = client.get(path)
    assert answer.status_code == 200
    assert "<img" not in answer.text
    assert answer.text.count("<h1>") == 1


def test_a_day_has_its_papers_the_first_three_larger_and_pages(client):
    page = client.get("/papers").text
    assert "<h1>Friday, 3 April 2026</h1>" in page
    assert "40 new papers" in page
    assert len(ids(page)) == 30
    assert page.count('class="paper large"') == 3
    second = client.get("/papers?page=2").text
    assert len(ids(second)) == 10
    assert not set(ids(page)) & set(ids(second))
    assert 'class="paper large"' not in second


def test_days_lead_to_the_days_beside_them(client):
    page = client.get("/papers").text
    assert 'rel="prev" href="/papers?day=2026-04-02"' in page
    assert 'rel="next" href="/papers?day' not in page
    before = client.get("/papers?day=2026-04-02").text
    assert "<h1>Thursday, 2 April 2026</h1>" in before
    assert 'rel="next" href="/papers?day=2026-04-03"' in before


def test_a_day_without_papers_says_why(client):
    page = client.get("/papers?day=2026-04-04").text
    assert "Weekend" in page
    assert 'rel="prev" href="/papers?day=2026-04-03"' in page


def test_a_shelf_has_the_papers_of_its_categories_alone(client):
    vision, language = (client.get(f"/papers?shelf={name}").text for name in ("vision", "language"))
    assert ids(vision)
    assert not set(ids(vision)) & set(ids(language))
    assert "cs.CV, also learning" in vision


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/papers?shelf=no", 404),
        ("/papers?day=tomorrow", 422),
        ("/papers?order=worst", 422),
        ("/papers/paper/2604.99999", 404),
        ("/papers/paper/no/id", 404),
        ("/papers/beside/2604.99999", 404),
        ("/papers/tagged?tag=no", 404),
        ("/papers/export?tag=no", 422),
        ("/papers/export?format=ris", 422),
        ("/papers/export?format=doc&liked=true", 422),
        ("/feeds/wrong/all.rss", 404),
    ],
)
def test_what_is_not_there_is_said(client, path, status):
    assert client.get(path).status_code == status


def test_a_search_marks_compounds_of_its_words_and_nothing_that_it_excludes(client):
    page = client.get("/papers/search?q=yolo+-part999").text
    assert "<mark>YOLOv8</mark> detector" in page
    assert "19 papers" in page
    assert "<mark>part" not in page


def test_marks_go_around_escaped_text(client):
    page = client.get("/papers/search?q=hacked").text
    assert "window.<mark>hacked</mark>=1" in page
    assert "<img" not in page


def test_a_search_that_cannot_be_read_says_where_and_stays_on_the_page(client):
    page = client.get("/papers/search", params={"q": '"no end'}).text
    assert "at character 1" in page
    assert 'value="&#34;no end"' in page


def test_typing_gets_the_results_alone(client):
    part = client.get("/papers/search?q=graph", headers={"HX-Request": "true"}).text
    assert "<mark>Graph</mark>" in part
    assert "<html" not in part
    assert "<h1>" not in part


def test_a_like_without_scripts_leads_back_to_the_paper_on_its_page(bench, post):
    answer = post("/papers/opinion", id=FIRST, value="1", back="/papers?day=2026-04-02")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/papers?day=2026-04-02#paper-{FIRST}"
    assert bench.reader.opinions() == {FIRST: 1}
    post("/papers/opinion", id=FIRST, value="0")
    assert bench.reader.opinions() == {}


def test_a_like_with_scripts_returns_its_buttons(bench, post):
    answer = post("/papers/opinion", {"HX-Request": "true"}, id=FIRST, value="-1", back="/papers")
    assert answer.status_code == 200
    assert answer.text.count("<form") == 1
    assert re.search(
        r'id="dislike-2604.00001" name="value" value="0" aria-pressed="true"', answer.text
    )
    assert bench.reader.opinions() == {FIRST: -1}


@pytest.mark.parametrize(
    "back",
    ["https://evil.example", "//evil.example", "/papers//evil", "/papersx", "/papers/\\evil",
     "/papers/\r\nSet-Cookie: a=b", "", "/papers/é", "/lab"],
)  # fmt: skip
def test_a_form_leads_back_to_this_room_only(post, back):
    answer = post("/papers/opinion", id=FIRST, value="1", back=back)
    assert answer.headers["location"] == f"/papers#paper-{FIRST}"


def test_what_was_liked_decides_what_comes_first_and_says_why(bench, client):
    for number in (1, 5, 9):  # the subject that 41, 45, ... have too
        bench.reader.like(f"2604.{number:05}")
    bench.ranking.ask("day", 60.0, day="2026-04-03", shelf=None, replaced=False)
    page = client.get("/papers").text
    assert "those nearest to what you liked first" in page
    assert int(ids(page)[0][-2:]) % 4 == 1
    assert "because: " in page
    assert "being computed" not in page
    newest = client.get("/papers?order=newest").text
    assert ids(newest)[0] == HOSTILE_ID


def test_topics_hold_each_paper_of_the_day_once_under_a_word_it_has(bench, client):
    which = {"day": "2026-04-03", "shelf": None, "replaced": False}
    groups = bench.ranking.ask("topics", 60.0, **which).value
    found = [key for _, papers in groups for key, _ in papers]
    assert sorted(found) == sorted(row["id"] for row in bench.library.day("2026-04-03"))
    for name, papers in groups:
        for row in bench.library.get_many([key for key, _ in papers] if name else []):
            assert name.lower().split()[0][:5] in f"{row['title']} {row['abstract']}".lower()
    page = client.get("/papers?order=topics").text
    named = [name for name, _ in groups if name]
    assert named
    assert all(f"<h2>{name}</h2>" in unescape(page) for name in named)
    largest, papers = groups[0]
    part = client.get("/papers", params={"order": "topics", "topic": largest}).text
    assert set(ids(part)) == {key for key, _ in papers}


def test_a_paper_says_how_its_summary_was_made_and_why_it_stands_where_it_does(bench, client):
    bench.reader.like(FIRST)
    page = client.get(f"/papers/paper/{FIRST}").text
    assert "Summary: verbatim sentence, chosen by Etude&#39;s ranking model" in page
    assert "https://arxiv.org/abs/2604.00001" in page
    beside = client.get(f"/papers/beside/{FIRST}", headers={"HX-Request": "true"})
    while "being computed" in beside.text:
        beside = client.get(f"/papers/beside/{FIRST}", headers={"HX-Request": "true"})
    assert "standard deviations" in beside.text
    assert ids(beside.text)
    assert FIRST not in ids(beside.text)


def test_tags_notes_and_authors_are_kept_and_found_again(bench, client, post):
    assert post("/papers/tag", id=FIRST, tag="to read").status_code == 303
    assert post("/papers/note", id=FIRST, text="Compare\r\nwith part 5.\u202e").status_code == 303
    assert post("/papers/author", author="A. Lovelace", follow="true").status_code == 303
    assert bench.reader.note_of(FIRST) == "Compare\nwith part 5."
    assert ids(client.get("/papers/tagged?tag=to+read").text) == [FIRST]
    noted = client.get("/papers/noted").text
    assert ids(noted) == [FIRST]
    assert "Compare\nwith part 5." in noted
    page = client.get(f"/papers/paper/{FIRST}").text
    assert 'aria-label="Unfollow Ada Lovelace"' in page
    post("/papers/tag", id=FIRST, tag="to read", remove="true")
    post("/papers/note", id=FIRST, text="  ")
    post("/papers/author", author="A. Lovelace", follow="false")
    assert bench.reader.tags() == {}
    assert bench.reader.notes() == {}
    assert bench.reader.following() == []


def test_a_note_that_is_too_long_is_refused_in_words(post):
    answer = post("/papers/note", id=FIRST, text="x" * 20_001)
    assert answer.status_code == 422
    assert "at most 20,000 characters" in answer.text


def test_a_saved_search_is_checked_and_its_new_papers_are_shown_until_seen(bench, client, post):
    wrong = post("/papers/saved", name="broken", query="(yolo")
    assert wrong.status_code == 422
    assert 'role="alert"' in wrong.text
    assert 'value="(yolo"' in wrong.text
    assert bench.reader.searches() == []
    post("/papers/saved", name="detectors", query="yolo")
    page = client.get("/papers/following").text
    assert "detectors" in page
    assert "I have seen these" not in page  # papers from now on are new


def test_new_papers_of_a_search_stay_until_they_were_seen(tmp_path_factory):
    from datetime import date

    from fastapi.testclient import TestClient
    from tests.web.conftest import KEY, LAUNCH_KEY
    from tests.web.rooms.papers_data import sighting

    from etude.app.papers.collecting import follow_up
    from etude.web.app import create_app
    from etude.web.security import cookie_name
    from etude.web.session import Sessions

    with installation(tmp_path_factory.mktemp("news")) as bench:
        bench.reader.save_search("detectors", "yolo")
        bench.library.put([sighting(84, date(2026, 4, 6)), sighting(85, date(2026, 4, 6))])
        follow_up(bench.library)
        sessions = Sessions(KEY, LAUNCH_KEY)
        app = create_app(bench, sessions, port=PORT)
        with TestClient(app, OWN, follow_redirects=False) as client:
            cookie = sessions.begin()
            client.cookies.set(cookie_name(PORT), cookie)
            page = client.get("/papers/following").text
            assert ids(page) == ["2604.00084"]
            assert client.get("/papers/following").text == page  # looking changes nothing
            upto = re.search(r'name="upto" value="(\d+)"', page)[1]
            headers = {"Origin": OWN, "X-CSRF-Token": sessions.read(cookie).csrf}
            client.post("/papers/seen", headers=headers, data={"upto": upto})
            assert ids(client.get("/papers/following").text) == []


@pytest.mark.parametrize("form", ["bibtex", "csl-json", "ris", "csv", "json"])
def test_a_selection_is_exported_in_each_format(bench, client, form):
    bench.reader.like(FIRST)
    bench.reader.like("2604.00002")
    answer = client.get(f"/papers/export?liked=true&format={form}")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert read(answer.content, form).ids == [FIRST, "2604.00002"]


def test_one_paper_a_day_and_a_search_are_selections(client):
    def exported(**query):
        return read(client.get("/papers/export", params=query).content, "bibtex").ids

    assert exported(id=FIRST) == [FIRST]
    assert len(exported(day="2026-04-03")) == 40
    assert len(exported(q="yolo")) == 19


def test_everything_goes_out_and_comes_back_with_notes(bench, client, post):
    bench.reader.note(FIRST, "A note\nof two lines")
    bench.reader.tag(FIRST, "kept")
    content = client.get("/papers/export?everything=true&format=json").content
    bench.reader.note(FIRST, "")
    bench.reader.untag(FIRST, "kept")
    page = post("/papers/import", files={"file": ("all.json", content)})
    assert page.status_code == 200
    assert (
        "80 entries read: 0 papers new, 2 likes, tags, notes and searches taken over" in page.text
    )
    assert bench.reader.note_of(FIRST) == "A note\nof two lines"
    assert bench.reader.tags() == {"kept": [FIRST]}
    assert json.loads(content)["reader"]["notes"][0]["text"] == "A note\nof two lines"
    bench.syncer.wait()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.exe", b"x", "must end in"),
        ("../../a.bib", b"@misc{a, title={x", "papers.bib, line 1"),
        ("a.json", b"{ not", "not valid JSON"),
        ("a.csv", b"", "no"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_and_where(post, name, content, said):
    answer = post("/papers/import", files={"file": (name, content)})
    assert answer.status_code == 422
    assert said in answer.text
    assert "etude-import-" not in answer.text


def test_feeds_are_served_by_a_secret_address_without_a_session(web, client, visitor):
    page = client.get("/papers/feeds").text
    address = unescape(re.search(r'href="([^"]+/all\.atom)"', page)[1])
    visitor.cookies.clear()
    answer = visitor.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/atom+xml")
    assert "2604.00001" in answer.text
    again = visitor.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert visitor.get(address.replace("all.atom", "no.atom")).status_code == 404
    secret = web.sessions.secret("feeds")
    assert visitor.get(address.replace(secret, "0" * 32)).status_code == 404


def test_the_switch_and_the_state_of_collecting(bench, client, post):
    page = client.get("/papers/health").text
    assert "Switch off" in page
    assert "Next by itself: " in page
    assert post("/papers/automatic", on="false").status_code == 303
    page = client.get("/papers/health").text
    assert "Switch on" in page
    assert "switched off" in page
    post("/papers/automatic", on="true")


def test_an_empty_installation_offers_the_first_sync(tmp_path, monkeypatch):
    from fastapi.testclient import TestClient
    from tests.web.conftest import KEY, LAUNCH_KEY

    from etude.app.workbench import open_workbench
    from etude.web.app import create_app
    from etude.web.security import cookie_name
    from etude.web.session import Sessions

    monkeypatch.setenv("ETUDE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ETUDE_DATABASE", "")
    bench = open_workbench(runs=tmp_path / "runs")
    sessions = Sessions(KEY, LAUNCH_KEY)
    with TestClient(create_app(bench, sessions, port=PORT), OWN) as client:
        client.cookies.set(cookie_name(PORT), sessions.begin())
        page = client.get("/papers").text
        assert "Fetch the last seven days" in page
        for path in ("/papers/search?q=x", "/papers/health", "/papers/following", "/papers/liked"):
            assert client.get(path).status_code == 200
    bench.close()


def test_the_server_ranks_and_summarises_nothing_itself(bench, tmp_path):
    bench.reader.like(FIRST)
    code = f"""
import sys
from pathlib import Path
from fastapi.testclient import TestClient
from etude.app.workbench import open_workbench
from etude.web.app import create_app
from etude.web.session import Sessions, launch_token
bench = open_workbench(runs=Path({str(tmp_path)!r}))
app = create_app(bench, Sessions(b"a", b"b"), port=80)
with TestClient(app, "http://127.0.0.1") as client:
    client.get("/open?token=" + launch_token(b"b"))
    for path in {[*PAGES, "/papers?order=topics"]!r}:
        assert client.get(path).status_code == 200, path
bench.close()
print([name for name in ("torch", "numpy", "scipy", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
