"""Practise without a browser: the list, drafts, the queue, hints, what is open to whom."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.practice.scripted_model import Model
from tests.web.conftest import EVIL, PORT

from etude.app.attempts import await_verdict, find_attempt, send
from etude.practice.judge.verdict import Verdict
from etude.practice.problem import find_problem
from etude.practice.progress import UserProgress
from etude.practice.queue import Queue
from etude.practice.tracks import find_track, load_tracks
from etude.web.formulas import to_mathml
from etude.web.pages import markdown

SLUG = "create-tensordataset"
TAB, OTHER = "a" * 16, "b" * 16
LONG_SECONDS = 120.0


@pytest.fixture(scope="module")
def problem():
    return find_problem(SLUG)


@pytest.fixture
def post(web, client):
    (cookie,) = client.cookies.values()
    csrf = web.sessions.read(cookie).csrf

    def send_form(path, source="x = 1\n", revision=0, tab=TAB, headers=None, **fields):
        form = {"csrf": csrf, "source": source, "revision": str(revision), "tab": tab, **fields}
        headers = {"Origin": f"http://127.0.0.1:{PORT}", **(headers or {})}
        return client.post(f"/practise/{path}", data=form, headers=headers)

    return send_form


@pytest.fixture
def judged(web):
    """Record a submission with a verdict, without a judge."""

    def record(slug, verdict, source="x = 1\n", user=None, visible_only=False):
        queue = Queue(web.bench.engine)
        key = queue.add(user or web.bench.user, slug, source, visible_only)
        while (ticket := queue.claim("test")).key != key:
            queue.finish(ticket, "test", Verdict("accepted"))
        queue.finish(ticket, "test", verdict)
        return key

    return record


@pytest.fixture(autouse=True)
def no_judge(request, monkeypatch):
    """Start a judge only where a test says that it needs one."""
    if request.node.get_closest_marker("judge") is None:
        monkeypatch.setattr("etude.practice.judge_process.JudgeProcess.want", lambda *_, **__: None)
        monkeypatch.setattr("etude.web.rooms.practise.answering.SOON_SECONDS", 0.0)


def key_of(answer):
    """Return the key of the attempt that a form leads to."""
    return parse_qs(urlsplit(answer.headers["location"]).query)["of"][0]


def slugs(page):
    return re.findall(r'<li>\s*<a href="/practise/([\w-]+)">', page.text)


def test_filters_narrow_the_list_each_by_itself_and_together(client):
    everything = slugs(client.get("/practise"))
    assert len(everything) == len(set(everything)) == 60
    for query in ("collection=llm", "difficulty=easy", "concept=attention", "state=new", "q=merge"):
        some = slugs(client.get(f"/practise?{query}"))
        assert 0 < len(some) <= 60, query
        assert set(some) <= set(everything)
    both = slugs(client.get("/practise?collection=llm&difficulty=easy"))
    llm, easy = (slugs(client.get(f"/practise?{q}")) for q in ("collection=llm", "difficulty=easy"))
    assert set(both) == set(llm) & set(easy) != set()


def test_counts_of_the_choices_are_those_of_the_lists(client):
    page = client.get("/practise").text
    for name, value, count in re.findall(r'<option value="([^"]+)">([^<(]+) \((\d+)\)', page):
        key = next(
            key
            for key in ("collection", "difficulty", "concept", "state")
            if f'<option value="{name}">' in page.split(f'name="{key}"')[1].split("</select>")[0]
        )
        found = client.get("/practise", params={key: name})
        assert len(slugs(found)) == int(count), (key, value)
        assert f'<option value="{name}" selected>'.replace("'", "&#39;") in found.text


def test_words_are_looked_for_in_titles_concepts_and_statements(client):
    assert slugs(client.get("/practise?q=TensorDataset"))[0] == SLUG
    assert SLUG in slugs(client.get("/practise?q=pairs+labels+samples"))
    nothing = client.get("/practise?q=zzzzzz")
    assert slugs(nothing) == []
    assert "No problem fits" in nothing.text


@pytest.mark.parametrize("query", ["collection=no", "difficulty=no", "state=no"])
def test_a_filter_that_does_not_exist_is_said(client, query):
    answer = client.get(f"/practise?{query}")
    assert answer.status_code == 422
    assert "there is no" in answer.text


def test_the_state_of_a_problem_follows_what_was_done(client, judged, post):
    slug = "causal-mask"
    assert slug in slugs(client.get("/practise?state=new"))
    judged(slug, Verdict("accepted", total=2), visible_only=True)
    assert slug in slugs(client.get("/practise?state=new")), "a run of visible tests counts nothing"
    post(f"{slug}/hint", find_problem(slug).starter)
    assert slug in slugs(client.get("/practise?state=begun"))
    judged(slug, Verdict("accepted", total=9))
    assert slug in slugs(client.get("/practise?state=solved"))


def test_a_collections_page_counts_its_problems_by_difficulty(client):
    page = client.get("/practise/collections/computer-vision")
    assert len(slugs(page)) == 10
    totals = re.findall(r"\d+ of (\d+) solved</span>", page.text)
    assert sum(map(int, totals)) == 10
    assert client.get("/practise/collections/no").status_code == 422


def test_a_tracks_page_has_its_problems_in_order_and_leads_to_the_next(client, judged):
    track = find_track("lora")
    page = client.get("/practise/tracks/lora")
    order = [step.problem for step in track.steps]
    assert slugs(page) == order
    assert all(step.why in unescape(page.text) for step in track.steps)
    judged(order[0], Verdict("accepted", total=9))
    again = client.get("/practise/tracks/lora").text
    assert f"1 of {len(order)} solved" in again
    headline = again[again.index('class="headline"') :]
    assert order[1] in headline[: headline.index("</p>")]
    shown = client.get("/practise").text
    assert shown.count("/practise/tracks/") == len(load_tracks())
    assert "/practise/tracks/" not in client.get("/practise?q=lora").text
    unknown = client.get("/practise/tracks/lara")
    assert unknown.status_code == 422 and "did you mean" in unknown.text


def test_code_is_saved_with_line_ends_of_python_and_shown_again(client, post):
    slug = "causal-mask"
    answer = post(f"{slug}/draft", "a = 1\r\nb = '</textarea>'\r\n")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/practise/{slug}#answer")
    page = client.get(f"/practise/{slug}").text
    assert ">\na = 1\nb = &#39;&lt;/textarea&gt;&#39;\n</textarea>" in page
    assert client.get(f"/practise/{slug}/draft").json() == {
        "revision": 1,
        "source": "a = 1\nb = '</textarea>'\n",
    }


def test_two_tabs_are_shown_both_codes_and_one_is_chosen(client, post):
    slug = "perplexity"
    json = {"Accept": "application/json"}
    assert post(f"{slug}/draft", "first", 0, headers=json).json() == {"revision": 1, "agrees": True}
    late = post(f"{slug}/draft", "second", 0, OTHER, headers=json)
    assert late.json() == {"revision": 1, "agrees": False}
    page = client.get(f"/practise/{slug}").text
    assert "Two tabs have changed this code" in page
    assert ">second</pre>" in page
    assert ">\nfirst</textarea>" in page
    post(f"{slug}/choose?copy={OTHER}", "first", 1, keep="yes")
    page = client.get(f"/practise/{slug}").text
    assert "Two tabs" not in page
    assert ">\nsecond</textarea>" in page


def test_a_button_saves_the_code_before_it_does_anything_else(client, post):
    slug = "rms-norm"
    post(f"{slug}/hint", "typed = True\n")
    assert "typed = True" in client.get(f"/practise/{slug}").text


def test_code_of_a_tab_that_is_late_is_judged_and_kept_beside_the_draft(web, client, post):
    slug = "label-masking"
    post(f"{slug}/draft", "newer", 0)
    answer = post(f"{slug}/submit", "older", 0, OTHER)
    key, location = key_of(answer), answer.headers["location"]
    assert find_attempt(web.bench.progress, key).source == "older"
    assert [copy.source for copy in web.bench.drafts.copies(slug)] == ["older"]
    page = client.get(location).text
    assert ">\nolder</textarea>" in page, "this tab goes on with its own code"
    assert ">newer</pre>" in page
    assert f'value="{OTHER}"' in page
    assert 'name="revision" value="0"' in page
    post(f"{slug}/choose?copy={OTHER}", "older, changed", 0, OTHER, keep="yes")
    assert web.bench.drafts.read(slug).source == "older, changed"


def test_code_that_is_too_long_is_refused_in_words(post):
    answer = post(f"{SLUG}/submit", "x" * 300_000)
    assert answer.status_code == 422
    assert "256 KB" in answer.text


def test_a_page_without_a_verdict_refreshes_itself_and_says_where_it_is(client, web, post):
    slug = "lora-merge"
    ahead = Queue(web.bench.engine).add("someone", slug, "")
    location = post(f"{slug}/submit", "x").headers["location"]
    page = client.get(location).text
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in page
    assert re.search(r"\d submissions? (is|are) before yours", page)
    assert 'topic="submission/' in page
    assert ahead not in page


def test_hints_come_one_by_one(client, post, problem):
    shown = [client.get(f"/practise/{SLUG}").text.count('class="hint prose"')]
    for _ in range(4):
        post(f"{SLUG}/hint", problem.starter)
        shown.append(client.get(f"/practise/{SLUG}").text.count('class="hint prose"'))
    assert shown == [0, 1, 2, 3, 3]
    assert "hint</button>" not in client.get(f"/practise/{SLUG}").text


def test_the_solution_opens_once_solved_or_asked_for(client, post, judged):
    slug = "nf4-codebook"
    solution = find_problem(slug).solution
    line = max(solution.splitlines(), key=len).strip()
    from markupsafe import escape

    closed = client.get(f"/practise/{slug}/solution").text
    assert str(escape(line)) not in closed
    assert "Show the solution now" in closed
    post(f"{slug}/solution")
    opened = client.get(f"/practise/{slug}/solution").text
    assert str(escape(line)) in opened
    assert "before solving it" in opened
    judged("lora-forward", Verdict("accepted", total=1))
    assert "You have solved this problem" in client.get("/practise/lora-forward/solution").text


def test_wrong_answers_are_explained_by_their_verdicts(client, post, problem):
    post(f"{SLUG}/solution")
    page = client.get(f"/practise/{SLUG}/solution").text
    assert page.count('class="wrong-answer"') == len(problem.wrong) == 4
    assert "The answer has the wrong shape." in page
    assert "<code>squeeze</code> in line" in page, "the cause found in the code"
    assert "# expect" not in page


def test_the_history_shows_what_was_changed(client, judged):
    slug = "top-p-sampling"
    judged(slug, Verdict("wrong answer", "shape", "the shape is wrong"), "a = 1\nb = 2\nc = 3\n")
    judged(slug, Verdict("accepted", total=3), "a = 1\nb = 20\nc = 3\n")
    judged(slug, Verdict("accepted", total=3), "z = 1\n", visible_only=True)
    page = client.get(f"/practise/{slug}/history").text
    assert "2 submissions" in page
    assert '<span class="removed">- b = 2\n</span>' in page
    assert '<span class="added">+ b = 20\n</span>' in page
    assert "z = 1" not in page
    assert page.index("accepted") < page.index("wrong answer: shape")


def test_what_belongs_to_another_user_does_not_exist(web, client, judged, post):
    key = judged(SLUG, Verdict("wrong answer", says="secret words"), "bobs_code = 1\n", user="bob")
    web.bench.drafts.__class__(web.bench.engine, "bob").save(SLUG, "bobs_draft", 0, TAB)
    answer = client.get(f"/practise/{SLUG}?of={key}")
    assert answer.status_code == 404
    for path in (SLUG, f"{SLUG}/history", f"{SLUG}/draft"):
        text = client.get(f"/practise/{path}").text
        assert "bobs_" not in text
        assert "secret words" not in text
    gone = client.get(f"/events/after?since=submission/{key}@").json()["events"]
    assert gone == [{"topic": f"submission/{key}", "gone": "there is no such submission"}]
    gone = client.get(f"/events/after?since=explanation/{key}@").json()["events"]
    assert "gone" in gone[0]
    assert post(f"{SLUG}/explain", of=key).status_code == 422


def test_a_submission_to_another_problem_is_not_shown_here(client, judged):
    key = judged("perplexity", Verdict("accepted"))
    assert client.get(f"/practise/{SLUG}?of={key}").status_code == 404


@pytest.fixture
def hostile(tmp_path, monkeypatch, web):
    """A shelf whose one problem tries to be HTML in every part."""
    folder = tmp_path / "pytorch" / "hostile"
    (folder / "wrong").mkdir(parents=True)
    (folder / "problem.md").write_text(
        f"""---
id: '00000000'
title: '{EVIL}'
difficulty: easy
tags: ['{EVIL}']
signature: "def f(x)"
---
{EVIL} [x](javascript:alert(1)) ![x](https://evil.example/x.png) $\\text{{{EVIL}}}$

<script>window.hacked=1</script>
"""
    )
    (folder / "starter.py").write_text(f"# </textarea>{EVIL}\n")
    (folder / "solution.py").write_text(f"# {EVIL}\n")
    (folder / "explanation.md").write_text(f"{EVIL}\n")
    (folder / "hints.md").write_text(f"## a\n{EVIL}\n## b\n{EVIL}\n## c\n{EVIL}\n")
    (folder / "wrong" / "x.py").write_text(f"# expect: wrong answer: shape\n# {EVIL}\n")
    monkeypatch.setattr("etude.practice.problem.shelf_folder", lambda: tmp_path)
    return "hostile"


def test_hostile_texts_of_problems_code_and_verdicts_stay_text(client, hostile, judged, post):
    judged(
        hostile,
        Verdict(
            "wrong answer",
            "values",
            EVIL,
            test=EVIL,
            note=EVIL,
            concept=EVIL,
            printed=EVIL,
            isolation=EVIL,
        ),
        f"# {EVIL}\n",
    )
    judged(hostile, Verdict("wrong answer", says=EVIL), f"# </pre>{EVIL} changed\n")
    post(f"{hostile}/draft", f"</textarea>{EVIL}")
    post(f"{hostile}/draft", f"</pre>{EVIL} b", 0, OTHER)
    post(f"{hostile}/hint", f"</textarea>{EVIL}", 1)
    post(f"{hostile}/solution")
    # No problem of a track is on this shelf: there is none to show, and the list is as it was.
    assert "/practise/tracks/" not in client.get("/practise").text
    for path in ("", "/collections/pytorch", f"/{hostile}", f"/{hostile}/history",
                 f"/{hostile}/solution"):  # fmt: skip
        page = client.get(f"/practise{path}")
        assert page.status_code == 200, path
        assert "window.hacked" in page.text
        assert "<img" not in page.text
        assert "<script>" not in page.text
        assert 'href="javascript' not in page.text


def test_formulas_become_mathml_of_known_parts_alone():
    assert "<mfrac><mn>1</mn><mn>2</mn></mfrac>" in to_mathml(r"\frac12")
    page = markdown(r"It costs $5 and $6; $a$ and $$b$$ and `$c$`. \$d\$")
    assert page.count("<math") == 2
    assert "$5 and $6" in page
    assert "<code>$c$</code>" in page
    assert "$d$" in page
    for hostile in (r"\href{javascript:alert(1)}{x}", r"\text{<img src=x>}", r"\color{red}x",
                    r"\class{a}{x}", r"\style{a:b}{x}", "<script>", r"\unknowncommand{",
                    "{" * 2000, "x" * 5000, r"\frac"):  # fmt: skip
        found = to_mathml(hostile)
        elements = set(re.findall(r"</?([a-z]+)", found))
        assert elements <= {"math", "mrow", "mi", "mo", "mn", "mtext", "mstyle", "code", "mfrac"}
        assert not re.search(r"<[^>]*(href|style=|class=\"[^f]|on\w+=)", found), hostile


def test_every_formula_of_every_problem_is_converted():
    from etude.practice.problem import load_shelf

    for problem in load_shelf():
        for text in (problem.statement, problem.explanation, *problem.hints):
            page = markdown(text)
            assert 'class="formula">' not in page.replace('<p class="formula">', ""), problem.slug
            assert not re.search(r"<m\w+[^>]*>\\", page), problem.slug


def transferred(client, path):
    """Return the bytes of a page and all that it names, as they are sent."""
    page = client.get(path).text
    files = set(re.findall(r"/static/[\w.-]+", page))  # the font is loaded once, and counted apart
    assert len(files) >= 3
    packed = [len(gzip.compress(client.get(file).content, 9)) for file in files]
    return len(gzip.compress(page.encode(), 6)) + sum(packed)


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/practise", 60_000),
        ("/practise/collections/llm", 60_000),
        (f"/practise/{SLUG}/history", 60_000),
        (f"/practise/{SLUG}/solution", 60_000),
        (f"/practise/{SLUG}", 190_000),
    ],
)
def test_pages_are_light(client, path, most):
    assert transferred(client, path) <= most


def test_a_model_explains_after_the_diagnosis_and_its_rating_is_kept(
    web, client, judged, post, monkeypatch
):
    model = Model(lambda _: "On “one feature”: your `squeeze` drops a dimension. Which one?")
    monkeypatch.setenv("ETUDE_LLM_URL", model.endpoint.url)
    monkeypatch.setenv("ETUDE_LLM_MODEL", model.endpoint.model)
    failed = Verdict("wrong answer", "shape", "the shape is wrong", test="one feature")
    key = judged(SLUG, failed, "def create_dataset(f, l): return f.squeeze()\n")
    before = client.get(f"/practise/{SLUG}?of={key}").text
    assert before.index("What to try") < before.index("Explain my failure")
    answer = post(f"{SLUG}/explain", of=key, question="why <b>?")
    assert answer.headers["location"] == f"/practise/{SLUG}?of={key}#explanation"
    explainer = web.bench.explainer
    for thread in explainer.threads():
        thread.join(60)
    assert "why <b>?" in str(model.asked[0][2])
    page = client.get(f"/practise/{SLUG}?of={key}").text
    assert "scripted-1 explains" in page
    assert "Your <code>squeeze</code>" in page or "your <code>squeeze</code>" in page
    number = explainer.kept(key).number
    post(f"{SLUG}/rate?number={number}", of=key, helped="yes")
    assert explainer.kept(key).helped is True
    assert "You said that it helped" in client.get(f"/practise/{SLUG}?of={key}").text
    model.server.shutdown()


def test_a_model_that_does_not_answer_is_said_and_asked_again(
    web, client, judged, post, monkeypatch
):
    monkeypatch.setenv("ETUDE_LLM_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("ETUDE_LLM_MODEL", "away")
    key = judged(SLUG, Verdict("wrong answer", "shape", "x", test="one feature"))
    post(f"{SLUG}/explain", of=key)
    for thread in web.bench.explainer.threads():
        thread.join(60)
    page = client.get(f"/practise/{SLUG}?of={key}").text
    assert "away did not answer" in page
    assert ">Explain</button>" in page
    monkeypatch.delenv("ETUDE_LLM_URL")
    assert "ETUDE_LLM_URL" in client.get(f"/practise/{SLUG}?of={key}").text
    assert post(f"{SLUG}/explain", of=key).status_code == 422


@pytest.mark.judge
def test_an_answer_is_judged_by_a_process_of_its_own_and_laid_out(web, client, post, problem):
    from tests.practice.judge.test_side_by_side import marked

    source = problem.solution.replace(
        "TensorDataset(features, labels)", "TensorDataset(features + (features > 0), labels)"
    )
    answer = post(f"{SLUG}/submit", source)
    assert answer.status_code == 303
    key = key_of(answer)
    assert await_verdict(web.bench.progress, key, LONG_SECONDS), web.bench.judge.failure
    verdict = find_attempt(web.bench.progress, key).verdict
    assert verdict.name == "wrong answer: values"
    (features, labels, count) = verdict.smallest.parts
    assert (features.differs, labels.differs, count.differs) == (True, False, False)
    wrong = marked(features.got)
    page = client.get(answer.headers["location"]).text
    assert page.count("<mark>") == 2 * len(wrong) > 0
    assert "<code>features</code>" in page
    assert 'The concept: <a href="/practise?concept=datasets">' in page
    assert "isolated by" in page

    run = post(f"{SLUG}/run", problem.solution, 1)
    assert await_verdict(web.bench.progress, key_of(run), LONG_SECONDS)
    page = client.get(run.headers["location"]).text
    assert "2 visible tests pass. Submit to be judged by the hidden ones as well." in page
    assert SLUG not in UserProgress(web.bench.engine, web.bench.user).solved()

    done = post(f"{SLUG}/submit", problem.solution, 2)
    assert await_verdict(web.bench.progress, key_of(done), LONG_SECONDS)
    page = client.get(done.headers["location"]).text
    assert re.search(r"All \d+ tests pass\.", page)
    assert SLUG in web.bench.progress.solved()


@pytest.mark.judge
def test_a_problem_deleted_while_it_is_judged_is_no_fault_of_its_answer(web, client, hostile, post):
    # The judge's process has another shelf, where this problem never was.
    key = send(web.bench.progress, hostile, "x", visible_only=False)
    web.bench.judge.want()
    assert await_verdict(web.bench.progress, key, LONG_SECONDS)
    assert find_attempt(web.bench.progress, key).verdict.kind == "system fault"
    page = client.get(f"/practise/{hostile}?of={key}").text
    assert "Unknown problem" in page
    assert "Your program is not to blame" in page


def test_the_font_of_formulas_is_sent_and_small(client):
    page = client.get(f"/practise/{SLUG}").text
    sheet = client.get(re.search(r"/static/app-\w+\.css", page)[0]).text
    font = client.get("/static/" + re.search(r"etude-math-\w+\.woff2", sheet)[0])
    assert (font.status_code, font.headers["content-type"]) == (200, "font/woff2")
    assert len(font.content) <= 60_000


def test_the_server_judges_hints_and_explains_without_torch(tmp_path):
    code = f"""
import os, sys
os.environ.update(ETUDE_HOME={str(tmp_path)!r}, ETUDE_USER="ada")
os.environ.pop("ETUDE_DATABASE", None)
from pathlib import Path
from fastapi.testclient import TestClient
from etude.app.workbench import open_workbench
from etude.practice.judge.verdict import Verdict
from etude.practice.queue import Queue
from etude.web.app import create_app
from etude.web.rooms.practise import answering
from etude.web.session import Sessions, launch_token
answering.SOON_SECONDS = 0
bench = open_workbench(runs=Path({str(tmp_path)!r}))
bench.judge.want = lambda **_: None
sessions = Sessions(b"a", b"b")
with TestClient(create_app(bench, sessions, port=80), "http://127.0.0.1") as client:
    client.get("/open?token=" + launch_token(b"b"))
    (cookie,) = client.cookies.values()
    form = dict(csrf=sessions.read(cookie).csrf, source="x", revision="0", tab="a" * 16)
    for what in ("draft", "hint", "run", "submit", "solution"):
        own = dict(Origin="http://127.0.0.1")
        answer = client.post("/practise/{SLUG}/" + what, data=form, headers=own)
        assert answer.status_code == 200, (what, answer.text)
        queue = Queue(bench.engine)
        while ticket := queue.claim("w"):
            failed = Verdict("wrong answer", "shape", "x", test="t", visible=True)
            queue.finish(ticket, "w", failed)
    assert "✕" in client.get("/practise/{SLUG}").text
    assert client.get("/practise/{SLUG}/history").status_code == 200
print([name for name in ("torch", "numpy", "transformers", "ray") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
