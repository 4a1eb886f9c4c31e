"""Today, Progress, Models and Settings: what a person sees of their own, and changes."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile

import pytest
from tests.app.test_today import solve
from tests.web.conftest import PORT

from etude.app.archive import count_records
from etude.app.model_work import work_folder
from etude.app.work import WorkState
from etude.core.paths import models_folder
from etude.practice.problem import load_shelf
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import signature

OWN = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A data folder of its own, with a model that was made here."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("ETUDE_HOME", str(folder))
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        yield folder


@pytest.fixture
def made():
    """A model that was quantised here."""
    folder = models_folder() / "tiny-nf4"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def post(web, client):
    """Send a form of the page."""
    (cookie,) = client.cookies.values()
    csrf = web.sessions.read(cookie).csrf

    def send(path, files=None, **fields):
        data = {"csrf": csrf, **fields}
        return client.post(path, data=data, files=files, headers={"Origin": OWN})

    return send


def primaries(page: str) -> int:
    return len(re.findall(r'class="(?:button )?primary"', page))


@pytest.mark.parametrize("path", ["/", "/progress", "/models", "/settings"])
def test_a_page_has_one_primary_action_at_most(client, path):
    assert primaries(client.get(path).text) <= 1


def test_a_newcomer_is_led_to_the_first_problem(client):
    page = client.get("/").text
    assert "Solve Create TensorDataset" in page and "Begin here" in page
    assert 'href="/practise/create-tensordataset"' in client.get("/progress").text


def test_progress_shows_days_as_a_table_and_as_a_list(web, client):
    problem, other = load_shelf()[1:3]
    solve(web.bench, problem)
    solve(web.bench, other, accepted=False)
    page = client.get("/progress").text
    today = web.bench.progress.today()
    assert f"{today.strftime('%A, %-d %B %Y')}: 1 problem</li>" in page
    (cell,) = re.findall(r'<td class="l1 now"[^>]*>(\d+)</td>', page)
    assert cell == "1"
    assert page.count('<th scope="row">') >= 7
    assert "wrong answer" in page and problem.title in page


def test_a_streak_that_is_switched_off_is_mentioned_nowhere(web, client, post):
    solve(web.bench, load_shelf()[5])
    assert "Days in a row" in client.get("/progress").text and "Streak" in client.get("/").text
    answer = post("/settings", timezone="Asia/Tokyo", automatic="true")
    assert (answer.status_code, answer.headers["location"]) == (303, "/settings?saved=true")
    for path in ("/", "/progress"):
        page = client.get(path).text
        assert "in a row" not in page and "Streak" not in page
    assert web.bench.progress.timezone().key == "Asia/Tokyo"
    page = client.get("/settings?saved=true").text
    assert "Saved." in page and "<option selected>Asia/Tokyo</option>" in page
    post("/settings", streak="true", automatic="true")
    assert "in a row" in client.get("/progress").text


def test_a_time_zone_that_is_none_is_said_beside_its_field(web, client, post):
    before = web.bench.choices.read()
    answer = post("/settings", timezone="Mars/Base")
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in answer.text and "no time zone" in answer.text
    assert web.bench.choices.read() == before


def test_papers_are_fetched_by_themselves_or_not_as_both_pages_say(client, post):
    post("/settings", streak="true")
    assert "switched off" in client.get("/papers").text
    box = re.search(r'name="automatic" value="true"( checked)?', client.get("/settings").text)
    assert box[1] is None
    post("/settings", streak="true", automatic="true")
    assert "switched off" not in client.get("/papers").text


def test_everything_is_exported_deleted_on_a_typed_word_and_imported_again(web, client, post):
    bench = web.bench
    before = count_records(bench.engine, "ada")
    answer = client.get("/settings/export")
    assert answer.headers["content-disposition"].startswith("attachment")
    archive = answer.content
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        assert json.loads(packed.read("etude.json"))["user"] == "ada"

    refused = post("/settings/delete", word="yes")
    assert refused.status_code == 422 and "nothing was deleted" in refused.text
    assert count_records(bench.engine, "ada") == before
    deleted = post("/settings/delete", word="delete")
    assert deleted.status_code == 200 and "deleted" in deleted.text
    after = count_records(bench.engine, "ada")
    assert sum(after.values()) == after["practice_dailies"] == 1  # the day began anew

    wrong = post("/settings/import", files={"file": ("a.zip", b"no zip")})
    assert wrong.status_code == 422 and "no archive" in wrong.text
    done = post("/settings/import", files={"file": ("a.zip", archive)})
    assert done.status_code == 200 and "imported" in done.text
    assert count_records(bench.engine, "ada") == before


def test_a_model_is_removed_unless_a_run_needs_it(web, client, post, made):
    with RunFolder.create("tuned", web.bench.runs) as run:
        run.write_text("recipe.yaml", f"model:\n  id: {made}\n")
        run.set_state("running")
        refused = post("/models/remove", name=str(made))
        assert refused.status_code == 409 and f"is used by {run.name}" in refused.text
        run.set_state("stopped")
    answer = post("/models/remove", name=str(made))
    assert answer.status_code == 303 and answer.headers["location"].startswith("/models?freed=")
    assert not made.exists()
    assert "freed" in client.get(answer.headers["location"]).text


@pytest.mark.parametrize("name", ["/etc", "..", "", "tiny-nf4/../..", "nobody"])
def test_only_what_is_listed_is_removed(post, name, made):
    assert post("/models/remove", name=name).status_code in (409, 422)
    assert made.exists()


def test_a_pull_is_shown_with_its_numbers_and_why_it_ended(client, post):
    (models_folder() / ".work").mkdir(parents=True, exist_ok=True)
    state = WorkState(
        "pull", "minilm", "", time.time(), signature(), "Downloading", 5_000_000, 20_000_000, "B"
    )
    work_folder().write(state)
    page = client.get("/models").text
    assert "5.00 MB of 20.0 MB" in page and 'value="5000000"' in page and "Stop" in page
    failed = WorkState("pull", "minilm", "", 1.0, None, ended=2.0, problem="no <network>")
    work_folder().write(failed)
    page = client.get("/models").text
    assert "no &lt;network&gt;" in page and "Try again" in page
    wrong = post("/models/pull", name="no model")
    assert wrong.status_code == 422 and 'aria-invalid="true"' in wrong.text
    work_folder().forget("minilm")


def test_runs_go_on_by_themselves_on_the_first_page(client, web):
    with RunFolder.create("training", web.bench.runs) as run:
        run.set_state("running")
        run.append_metrics({"step": 3, "total_steps": 9, "loss": 1.0, "seconds": 2.0})
        for path in ("/", "/today/runs"):
            page = client.get(path).text
            assert f'topic="run/{run.name}"' in page and "step 3 of 9" in page
        run.set_state("finished")
