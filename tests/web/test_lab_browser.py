"""The Lab in a browser: from a CSV file to a finished run; reload, and a server that is killed."""

from __future__ import annotations

import re
import signal

import pytest
from tests.web.server_process import ServerProcess

from etude.app.run_queue import read_queue
from etude.app.runs import list_facts
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import send

pytestmark = pytest.mark.integration
MINUTES = 4 * 60_000


@pytest.fixture(scope="module")
def model(tiny_llama):
    return str(tiny_llama(layers=1))


@pytest.fixture
def questions(tmp_path):
    file = tmp_path / "questions <b>.csv"
    lines = ["question;answer", *(f"open {n};Close {n}." for n in range(40))]
    file.write_text("\n".join(lines), "utf-8")
    return file


@pytest.fixture(autouse=True)
def nothing_left(bench):
    yield
    for run in (*read_queue(bench.runs).active, *read_queue(bench.runs).waiting):
        send(run.state_record(), signal.SIGKILL)


def begin(page, address, file, model):
    page.goto(f"{address}/lab")
    page.get_by_role("link", name="Start a run").click()
    page.get_by_label("A file to send").set_input_files(file)
    page.get_by_label("Model").fill(model)
    page.get_by_role("button", name="Look at the data").click()


def change(page, **fields):
    for name, value in fields.items():
        page.locator(f"[name='{name.replace('__', '.')}']").fill(str(value))
    page.get_by_role("button", name="Store, and look again").click()


SHORT = {"train__max_steps": 12, "train__save_every": 5, "train__eval_every": 4}
SHORT |= {"train__batch_samples": 4, "data__max_length": 64, "eval__generate": 4}


def test_from_a_csv_file_to_a_finished_run(served, page, questions, model):
    page.set_default_timeout(MINUTES)
    begin(page, served.address, questions, model)
    page.get_by_role("heading", name="What the model will see").wait_for()
    change(page, **SHORT)
    assert page.locator("[name='train.max_steps']").input_value() == "12"
    assert "max_steps: 12" in page.get_by_label("YAML").input_value()
    start = page.get_by_role("button", name="Start the run")
    # The button waits until all has been looked at.
    page.locator("#start button.primary:not([disabled])").wait_for()
    mask = page.get_by_role("region", name=re.compile("^Tokens of"))
    assert mask.count() == 3
    trained = mask.first.locator(".trained")
    assert "".join(trained.all_inner_texts()).startswith("Close")
    assert trained.last.get_attribute("class") == "trained special"
    assert "etude tune chat --data" in page.locator("#start pre").inner_text()
    page.get_by_role("link", name="csv:7").first.click()
    assert page.get_by_role("region", name=re.compile(r"^Tokens of .*csv:7$")).count() == 1
    page.get_by_label("Rows that contain").fill("open 3")
    page.get_by_role("button", name="Search").click()
    assert "11 rows" in page.locator("#seen").inner_text()

    start.click()
    page.wait_for_url("**/lab/runs/*")
    page.locator("#standing .state.finished").wait_for()
    page.locator("etude-curves[data-steps='12'] canvas").first.wait_for()
    page.reload()
    page.locator("etude-curves[data-steps='12'] canvas").first.wait_for()
    assert page.get_by_role("region", name="Predictions", exact=True).is_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the adapter").click()
    assert download.value.path().stat().st_size > 1000
    name = page.url.rpartition("/")[2]
    assert len(RunFolder(served.bench.runs / name).read_metrics()) >= 12
    page.get_by_label("Delete the run").check()
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/lab")
    assert not (served.bench.runs / name).exists()


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_a_run_is_started_stopped_and_resumed(served, page, questions, model):
    page.set_default_timeout(MINUTES)
    begin(page, served.address, questions, model)
    change(page, **{**SHORT, "train__max_steps": 100_000, "train__epochs": 100_000})
    button = page.locator("#start button.primary:not([disabled])")
    for _ in range(200):  # the page is reloaded by its reader
        if button.count():
            break
        page.wait_for_timeout(500)
        page.reload()
    button.click()
    assert "/lab/runs/" in page.url
    run = RunFolder(served.bench.runs / page.url.rpartition("/")[2])
    for _ in range(1000):
        if len(run.read_metrics()) > 6:
            break
        page.wait_for_timeout(100)
    page.reload()
    assert page.locator(".curve svg path.line-0").count() >= 3
    page.get_by_role("button", name="Stop and save").click()
    for _ in range(1000):
        if run.state == "stopped":
            break
        page.wait_for_timeout(100)
    page.reload()
    assert "goes on from step" in page.locator("#standing").inner_text()
    page.get_by_role("button", name="Resume").click()
    for _ in range(1000):
        if run.state == "running":
            break
        page.wait_for_timeout(100)
    assert run.state == "running"


@pytest.mark.refused_form
def test_what_is_wrong_is_said_beside_its_field(served, page, questions, model, tmp_path):
    page.set_default_timeout(MINUTES)
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    page.goto(f"{served.address}/lab/new")
    page.get_by_role("button", name="Look at the data").click()
    assert "Choose a file" in page.get_by_role("alert").inner_text()
    page.get_by_label("or the path of a file").fill(str(empty))
    page.get_by_role("button", name="Look at the data").click()
    assert "is empty" in page.get_by_role("alert").inner_text()
    begin(page, served.address, questions, model)
    change(page, adapter__rank="many")
    assert "many" in page.locator("#adapter-rank-error").inner_text()
    assert page.locator("#adapter-rank").get_attribute("aria-invalid") == "true"
    assert page.get_by_role("button", name="Start the run").is_disabled()
    page.get_by_label("YAML").fill("a: [")
    page.get_by_role("button", name="Store, and look again").click()
    assert "not YAML" in page.get_by_role("alert").first.inner_text()
    assert page.get_by_label("YAML").input_value() == "a: ["


def shows(page, wanted):
    """Wait until the curves show a number of steps; scripts of ours cannot wait in the page."""
    curves = page.locator("etude-curves")
    for _ in range(2400):
        if wanted(int(curves.get_attribute("data-steps") or 0)):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"the curves show {curves.get_attribute('data-steps')} steps")


def test_a_server_killed_in_mid_run_shows_the_same_curve_afterwards(
    browser, tmp_path, questions, model
):
    from etude.app.jobs import add_job
    from etude.app.tune import PlannedRun
    from etude.tuning.config.recipe import Recipe

    runs = tmp_path / "runs"
    fields = {
        "model": {"id": model, "dtype": "float32"},
        "quant": {"kind": "nf4"},
        "data": {"train": str(questions), "prompt": "question", "completion": "answer"},
        "train": {"max_steps": 10**6, "epochs": 10**6, "batch_samples": 4, "save_every": 50},
        "eval": {"generate": 0},
    }
    run = add_job(PlannedRun(Recipe.parse({"name": "long", **fields})), runs)
    server = ServerProcess(runs)
    page = browser.new_context().new_page()
    page.set_default_timeout(MINUTES)
    try:
        # The server starts what waits; it is not the run's owner.
        page.goto(server.link())
        page.goto(f"{server.address}/lab/runs/{run.name}")
        curves = page.locator("etude-curves")
        shows(page, lambda steps: steps > 10)
        address = server.address
        server.kill()
        shown = int(curves.get_attribute("data-steps"))
        while len(run.read_metrics()) < shown + 5:
            page.wait_for_timeout(100)
        assert run.state == "running", "the run does not need the server"
        server.start()
        assert server.address == address
        # The page goes on by itself.
        shows(page, lambda steps: steps > shown + 5)
        send(run.state_record(), signal.SIGKILL)
        page.locator("#standing .state.killed").wait_for()
        recorded = [r["step"] for r in run.read_metrics() if "loss" in r]
        assert recorded == list(range(1, len(recorded) + 1))
        shows(page, lambda steps: steps == len(recorded))
        page.reload()
        shows(page, lambda steps: steps == len(recorded))
        assert [fact.state for fact in list_facts(runs)] == ["killed"]
    finally:
        server.kill()
        send(run.state_record(), signal.SIGKILL)
        page.context.close()
