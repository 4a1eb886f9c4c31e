"""The Lab's pages without a browser: what they say, what they refuse, and how heavy they are."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from tests.web.conftest import EVIL, PORT

from etude.app import drafts
from etude.app.run_queue import read_order, read_queue
from etude.tuning.config.recipe import Recipe
from etude.tuning.cross_validation.page import write_folds_report
from etude.tuning.metrics.metric import loss_metric
from etude.tuning.runs.folder import RunFolder, remove_run
from etude.tuning.search.page import write_search_report
from etude.tuning.search.record import SearchRecord, Selection
from etude.tuning.search.space import space_of
from etude.tuning.search.trial import Trial

ORIGIN = {"Origin": f"http://127.0.0.1:{PORT}"}


@pytest.fixture
def post(web, client):
    (cookie,) = client.cookies.values()
    token = web.sessions.read(cookie).csrf

    def send(to, /, files=None, **fields):
        if files:  # the token comes first
            parts = [("csrf", (None, token)), *((k, (None, v)) for k, v in fields.items()), *files]
            return client.post(to, files=parts, headers=ORIGIN)
        return client.post(to, data={"csrf": token, **fields}, headers=ORIGIN)

    return send


@pytest.fixture
def run(bench):
    """A run with curves, predictions and a log, all of which try to be HTML."""
    with RunFolder.create("shown", bench.runs) as folder:
        fields = {"name": "shown", "data": {"train": f"{EVIL}.jsonl"}}
        folder.write_text("recipe.yaml", Recipe.parse(fields).to_yaml())
        for step in range(1, 31):
            record = {"step": step, "total_steps": 60, "loss": 3 - step / 20, "seconds": 2.0 * step}
            folder.append_metrics({**record, f"<b>{EVIL}": 1.0})
        folder.append_metrics({"step": 30, "eval_loss": 1.625})
        sample = {"origin": "r:1", "prompt": EVIL, "reference": "a", "before": "b", "after": "a"}
        folder.write_lines("samples.jsonl", [sample, {**sample, "origin": "r:2", "after": EVIL}])
        folder.log.write_text(f"begins {EVIL}\n", "utf-8")
        folder.set_state("stopped", f"stopped at step 30 {EVIL}")
    yield folder
    if folder.path.exists():
        remove_run(folder)


def test_a_runs_page_says_its_state_its_reason_and_what_to_do(client, run):
    page = client.get(f"/lab/runs/{run.name}").text
    assert EVIL not in page and "&lt;img" in page
    assert 'class="state stopped"' in page and "stopped at step 30" in page
    assert "resume it" in page and ">Resume<" in page
    assert "Step 30 of 60" in page and "1.625" in page
    # The worst first: the sample that is wrong.
    assert page.index("r:2") < page.index("r:1")
    ordered = client.get(f"/lab/runs/{run.name}?order=first").text
    assert ordered.index("r:1") < ordered.index("r:2")
    answer = client.get(f"/lab/runs/{run.name}/series").json()
    assert answer["points"]["loss"]["steps"] == list(range(1, 31))
    more = client.get(f"/lab/runs/{run.name}/series", params={"cursor": answer["cursor"]}).json()
    assert more["points"] == {} and not more["reset"]


@pytest.fixture
def search(bench):
    """A search with two trials, of which one has a reason that tries to be HTML."""
    space = space_of(
        {"data": {"train": "rows.jsonl"}, "train": {"lr": {"low": 1e-4, "high": 1e-2}}}, "s.yaml"
    )
    figures = {"trainable_parameters": 1000, "train_seconds": 3.0}
    done = Trial(0, {"train.lr": 1e-3}, "finished", 0, {}, [2.5], 0.25, figures, 4.0, "trial-000")
    lost = Trial(1, {"train.lr": 5e-3}, "failed", 1, reason=f"its process ended {EVIL}")
    chosen = Selection(default=0, best=0, cheapest=0)
    with RunFolder.create("searched", bench.runs) as folder:
        folder.write_json("search.json", space.as_json())
        folder.write_text("recipe.yaml", space.default.to_yaml())
        SearchRecord(loss_metric("nats"), (), [done, lost], chosen).write(folder)
        write_search_report(folder, space)
        folder.set_state("stopped", "2 of 20 trials")
    yield folder
    remove_run(folder)


@pytest.fixture
def folds(bench):
    """A cross-validation that was stopped before its first fold."""
    with RunFolder.create("reviews-folds", bench.runs) as folder:
        folder.write_json("folds.json", {"folds": 5, "repeats": 1})
        fields = {"name": "reviews", "data": {"train": "rows.jsonl"}}
        folder.write_text("recipe.yaml", Recipe.parse(fields).to_yaml())
        folder.set_state("stopped", "0 of 5 folds finished")
        write_folds_report(folder)
    yield folder
    remove_run(folder)


def test_the_page_of_a_cross_validation_says_how_it_goes_on(client, post, folds):
    page = client.get(f"/lab/runs/{folds.name}").text
    assert "0 of 5 folds finished" in page and "cross-validation" in page
    assert f"etude tune --resume {folds.name}" in page
    assert "Clone with changes" not in page and "Take it elsewhere" not in page
    report = client.get(f"/lab/runs/{folds.name}/report")
    assert report.status_code == 200 and "Every fold" in report.text
    told = post(f"/lab/runs/{folds.name}/resume")
    assert told.status_code == 422 and "is a cross-validation" in told.text
    assert folds.name in client.get("/lab").text


def test_the_page_of_a_search_lists_its_trials_and_opens_its_report(
    web, client, post, search, monkeypatch
):
    monkeypatch.setattr("etude.app.jobs.advance", lambda base: None)
    page = client.get(f"/lab/runs/{search.name}").text
    assert EVIL not in page and "&lt;img" in page
    assert "2.500 ±0.250" in page and "1.00e-3" in page and ">failed<" in page
    assert f"etude search --resume {search.name}" in page
    assert ">Resume<" in page and "Clone with changes" not in page and "No step yet" not in page
    report = client.get(f"/lab/runs/{search.name}/report")
    assert report.status_code == 200 and "Hyper-parameter search" in report.text
    assert EVIL not in report.text
    where = f"/lab/runs/{search.name}"
    assert post(f"{where}/resume", trials="0").status_code == 422
    assert post(f"{where}/resume", trials="30").headers["location"] == where
    assert read_order(search)["search"] == {"trials": 30}
    assert [one.name for one in read_queue(web.bench.runs).waiting] == [search.name]
    assert post(f"{where}/stop").status_code == 303 and search.state == "stopped"
    assert search.name in client.get("/lab").text


def test_a_damaged_run_has_a_page_that_says_so(client, run):
    (run.path / "metrics.jsonl").write_text("\0\n")
    (run.path / "state.json").write_text("{")
    page = client.get(f"/lab/runs/{run.name}")
    assert page.status_code == 200 and "cannot be read" in page.text


def test_a_run_is_queued_taken_out_and_deleted_with_a_tick(web, run, post, monkeypatch):
    monkeypatch.setattr("etude.app.jobs.advance", lambda base: None)
    where = f"/lab/runs/{run.name}"
    assert post(f"{where}/stop").status_code == 422
    assert post(f"{where}/resume").headers["location"] == where
    assert [one.name for one in read_queue(web.bench.runs).waiting] == [run.name]
    assert post(f"{where}/stop").status_code == 303
    assert run.state == "stopped" and read_queue(web.bench.runs).waiting == []
    assert post(f"{where}/delete").status_code == 422 and run.path.exists()
    assert post(f"{where}/delete", sure="true").headers["location"] == "/lab"
    assert not run.path.exists()
    assert post(f"{where}/delete", sure="true").status_code == 404


def test_a_report_is_shut_off_from_the_app(client, run):
    run.report.write_text("<script>1</script>", "utf-8")
    answer = client.get(f"/lab/runs/{run.name}/report")
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    run.adapter.mkdir()
    (run.adapter / "adapter_config.json").write_text("{}")
    (run.adapter / "link").symlink_to(run.report)
    packed = client.get(f"/lab/runs/{run.name}/adapter.zip")
    assert packed.headers["content-disposition"].startswith("attachment")
    assert packed.headers["content-security-policy"] == "sandbox"
    assert b"adapter_config.json" in packed.content and b"link" not in packed.content


@pytest.mark.parametrize("name", ["..", "%2e%2e", "latest", "no", "a%2fb", EVIL])
def test_what_is_no_run_has_no_page(client, name):
    answer = client.get(f"/lab/runs/{name}/series")
    assert answer.status_code in (404, 400)


def test_runs_are_compared_and_one_alone_is_refused(client, run, bench):
    with RunFolder.create("other", bench.runs) as other:
        other.append_metrics({"step": 1, "loss": 2.0})
        sample = {"origin": "r:2", "prompt": EVIL, "reference": "a", "before": "b", "after": "a"}
        other.write_lines("samples.jsonl", [sample])
        other.set_state("stopped")
    page = client.get("/lab/compare", params={"run": [run.name, other.name]})
    assert page.status_code == 200 and "100.0 points better" in page.text
    assert page.text.count('class="line-1"') == 1
    alone = client.get("/lab/compare", params={"run": run.name})
    assert alone.status_code == 422 and "two different runs" in alone.text
    remove_run(other)


@pytest.fixture
def looked(monkeypatch):
    """What is looked at in processes of their own is left out."""
    monkeypatch.setattr(drafts.Draft, "look", lambda self, base: None)


def test_a_clone_is_changed_by_fields_and_by_yaml(client, run, post, looked):
    where = post(f"/lab/runs/{run.name}/clone").headers["location"]
    page = client.get(where)
    assert page.status_code == 200 and EVIL not in page.text
    assert re.search(r"<button class=\"primary\" disabled", page.text)
    found = drafts.find_draft(where.rpartition("/")[2])
    form = {field.key: field.value for group in found.form().groups.values() for field in group}
    text = found.yaml
    assert post(f"{where}/recipe", yaml=text, **{**form, "adapter.rank": "3"}).status_code == 303
    assert "rank: 3" in found.yaml
    # Both views changed: the text first, then the field.
    both = {**form, "adapter.rank": "5"}
    post(f"{where}/recipe", yaml=found.yaml.replace("rank: 3", "rank: 4"), **both)
    assert "rank: 5" in found.yaml
    post(f"{where}/recipe", yaml="a: [", **form)
    assert "this is not YAML" in client.get(where).text
    started = post(f"{where}/start")
    assert started.status_code == 422 and "not YAML" in started.text


def test_a_search_around_a_run_is_chosen_by_a_form_and_waits_in_the_queue(
    web, client, post, bench, monkeypatch
):
    monkeypatch.setattr("etude.app.jobs.advance", lambda base: None)
    with RunFolder.create("begun", bench.runs) as run:
        data = run.path / f"{EVIL}.jsonl"
        data.write_text('{"prompt": "a", "completion": "b"}\n' * 9)
        recipe = Recipe.parse({"name": "begun", "data": {"train": str(data)}})
        run.write_text("recipe.yaml", recipe.to_yaml())
        run.set_state("finished")
    where = post(f"/lab/runs/{run.name}/search").headers["location"]
    page = client.get(where)
    assert page.status_code == 200 and EVIL not in page.text
    assert "etude search chat --data" in page.text and "--trials 20" in page.text
    # Ticked is what is known to matter.
    assert page.text.count('name="vary"') > page.text.count("checked> <b>") == 5
    varied = {"vary": "train.lr", "low.train.lr": "1e-4", "log.train.lr": "true", "trials": "3"}
    shown = post(where, **varied, **{"high.train.lr": "1e-2"})
    assert shown.status_code == 303 and "csrf" not in shown.headers["location"]
    again = client.get(shown.headers["location"].partition("#")[0])
    assert "train.lr={default: 0.001, high: 0.01" in again.text.replace("&#39;", "'")
    wrong = post(where, **varied, **{"high.train.lr": "1e-5", "start": "true"})
    assert wrong.status_code == 422 and "is above high" in wrong.text
    assert read_queue(bench.runs).waiting == []
    started = post(where, **varied, **{"high.train.lr": "1e-2", "start": "true"})
    (search,) = read_queue(bench.runs).waiting
    assert started.headers["location"] == f"/lab/runs/{search.name}"
    assert search.is_search
    page = client.get(started.headers["location"]).text
    assert "No trial yet" in page and "Take it out of the queue" in page
    for folder in (run, search):
        remove_run(folder)


def test_an_upload_is_stored_under_a_plain_name_or_refused(post, looked, monkeypatch):
    seen = []

    def make(draft, data, **options):
        seen.append(data)
        draft.write("task: chat\n")

    monkeypatch.setattr(drafts, "make_draft", make)
    evil = [("file", ("../../.ssh/é\n<b>.csv", b"a,b\n1,2\n", "text/csv"))]
    assert post("/lab/new", files=evil, path="", task="auto", method="lora").status_code == 303
    name = seen[0].rpartition("/")[2]
    assert re.fullmatch(r"[\w.-]+", name) and "/data/" in seen[0]
    assert Path(seen[0]).read_bytes() == b"a,b\n1,2\n"
    monkeypatch.setattr(drafts, "LARGEST_UPLOAD", 5)
    before = set(drafts._folder().iterdir())
    refused = post("/lab/new", files=evil, path="", task="auto", method="lora")
    assert refused.status_code == 422 and "larger than" in refused.text
    assert set(drafts._folder().iterdir()) == before


def test_a_body_that_says_it_is_huge_is_refused_unread(client, post):
    headers = {**ORIGIN, "Content-Length": str(2 * 10**9), "Content-Type": "multipart/form-data"}
    assert client.post("/lab/new", headers=headers, content=b"").status_code == 413


def test_the_labs_page_takes_less_than_a_hundred_kilobytes(client, run):
    page = client.get(f"/lab/runs/{run.name}").text
    files = set(re.findall(r'(?:src|href|content)="(/static/[^"]+)"', page))
    assert any("lab-" in file for file in files)
    sent = len(gzip.compress(page.encode()))
    for file in files:
        answer = client.get(file, headers={"Accept-Encoding": "gzip"})
        sent += int(answer.headers["content-length"])
    assert sent < 100_000
