"""A newcomer's first hour with `etude up`, in one go, in a real browser.

Opened by the link that the terminal shows, a problem is solved with the keyboard alone, a paper is
liked, a file of data is sent and looked at, a model is tuned by QLoRA, its adapter is taken home,
it is asked beside its base, and a file for llama.cpp is made of it.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from datetime import date

import pytest
from tests.web.conftest import new_context
from tests.web.rooms.papers_data import sighting
from tests.web.rooms.test_practise_browser import (
    focused,
    go_to_editor,
    press_button,
    replace_code,
    sentence,
)
from tests.web.test_lab_browser import SHORT, change

from etude.app.conversing import end_conversing
from etude.app.run_queue import read_queue
from etude.core.paths import home
from etude.practice.problem import find_problem
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import send

pytestmark = [pytest.mark.integration, pytest.mark.judge, pytest.mark.timeout(2400)]
LONG_MS = 10 * 60_000
SLUG = "create-tensordataset"


@pytest.fixture
def folder(tmp_path):
    """A data folder that nobody has used, but for five papers; kernels are not built once more."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "native").symlink_to(home() / "native", target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_HOME", str(tmp_path / "home"))
        patch.setenv("ETUDE_DATABASE", "")
        patch.setenv("ETUDE_USER", "newcomer")
        patch.setenv("ETUDE_ARXIV", "http://127.0.0.1:9")  # nothing listens there
        from etude.app.workbench import open_workbench

        bench = open_workbench(runs=tmp_path / "runs")
        bench.library.put([sighting(number, date(2026, 4, 2)) for number in range(1, 6)])
        bench.close()
        yield tmp_path
    queue = read_queue(tmp_path / "runs")
    for run in (*queue.active, *queue.waiting):
        send(run.state_record(), signal.SIGKILL)


@pytest.fixture
def link(folder):
    """What `etude up` prints: the link that lets a browser in once."""
    words = [sys.executable, "-m", "etude", "up", "--no-browser", "--port", "18800"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    said = ""
    while "token=" not in said:
        line = process.stdout.readline()
        assert line, f"etude up ended: {said}"
        said += line
    (found,) = re.findall(r"http://\S+/open\?token=\S+", said)
    yield found
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@pytest.fixture
def questions(tmp_path):
    file = tmp_path / "questions.csv"
    file.write_text("\n".join(["question;answer", *(f"open {n};Close {n}." for n in range(40))]))
    return file


def test_a_newcomers_first_hour(browser, link, folder, questions, tiny_llama):
    with new_context(browser, accept_downloads=True) as context:
        context.set_default_timeout(LONG_MS)
        page = context.new_page()
        page.goto(link)
        assert page.url == f"{link.partition('/open')[0]}/", "no token stays in the address"
        solve_a_problem_with_keys_alone(page)
        like_a_paper_with_keys_alone(page)
        look_at_data(page, questions, str(tiny_llama(layers=1)))
        run = tune(page, folder)
        take_the_adapter_home(page, run)
        try:
            chat_with_it(page)
        finally:
            end_conversing(run)
        export_it(page, run)
        what_was_done_is_remembered(page)
    with new_context(browser, "status of 403") as stranger:
        page = stranger.new_page()
        page.goto(link)
        assert "used before" in page.locator(".lede").inner_text()


def tab_to(page, name):
    """Press Tab until something of this name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page)[1] == name:
            return
    raise AssertionError(f"Tab does not reach {name}")


def back_to_editor(page):
    """Press Shift+Tab from the verdict, which has the focus, past both buttons."""
    for _ in range(3):
        page.keyboard.press("Shift+Tab")
    assert focused(page)[0] == "etude-editor"


def solve_a_problem_with_keys_alone(page):
    problem = find_problem(SLUG)
    line = "(features, labels)\n    return"
    wrong_shape, wrong_numbers = (
        problem.solution.replace(line, f"({one}, labels)\n    return")
        for one in ("features.unsqueeze(-1)", "-features")
    )
    assert problem.solution not in (wrong_shape, wrong_numbers)
    tab_to(page, "Begin")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/practise/{SLUG}")
    go_to_editor(page)
    replace_code(page, wrong_shape)
    press_button(page, "Submit")
    page.locator("#attempt.failed h2").wait_for()
    assert "the shape" in sentence(page)
    assert "wrong answer: shape" in page.locator("#attempt .kind").inner_text()
    expected, got, *_ = page.locator("#attempt .comparison .differs").all_inner_texts()
    assert expected != got and expected.startswith("shape (") and got.startswith("shape (")

    # The right shape with other numbers, to the visible tests.
    back_to_editor(page)
    replace_code(page, wrong_numbers)
    page.keyboard.press("Control+Enter")
    page.locator("#attempt mark").first.wait_for()
    assert page.locator("#attempt mark").count() == 12, "the entries that differ are marked"

    back_to_editor(page)
    replace_code(page, problem.solution)
    page.keyboard.press("Control+Shift+Enter")
    page.locator("#attempt.accepted h2").wait_for()
    assert "tests pass" in sentence(page)


def like_a_paper_with_keys_alone(page):
    page.reload()
    tab_to(page, "Papers")
    page.keyboard.press("Enter")
    page.wait_for_url("**/papers")
    page.keyboard.press("j")
    page.keyboard.press("l")
    page.locator("li[data-paper] [id^='like-'][aria-pressed=true]").wait_for()


def look_at_data(page, questions, model):
    page.get_by_role("navigation", name="Rooms").get_by_role("link", name="Lab").click()
    page.get_by_role("link", name="Start a run").click()
    page.get_by_label("A file to send").set_input_files(questions)
    page.get_by_label("Model").fill(model)
    page.get_by_role("button", name="Look at the data").click()
    page.get_by_role("heading", name="What the model will see").wait_for()
    change(page, **SHORT)
    # Nothing can be started before all of it was looked at.
    page.locator("#start button.primary:not([disabled])").wait_for()
    seen = page.locator("#seen").inner_text()
    assert "Nothing was found in" in seen
    assert re.search(r"At its peak the run takes [\d.]+ [MG]B of the [\d.]+ [MG]B", seen)
    page.get_by_role("link", name="csv:7").first.click()
    row = page.get_by_role("region", name=re.compile(r"^Tokens of .*csv:7$"))
    row.wait_for()
    assert "".join(row.locator(".trained").all_inner_texts()).startswith("Close 5.")
    assert "open 5" in "".join(row.locator(".context").all_inner_texts())


def tune(page, folder):
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**/lab/runs/*")
    page.evaluate("window.opened = 'once'")
    page.locator("#standing .state.finished").wait_for()
    page.locator("etude-curves[data-steps='12'] canvas").first.wait_for()
    page.get_by_role("region", name="Predictions", exact=True).wait_for()
    assert page.evaluate("window.opened") == "once", "it was watched without a reload"
    run = RunFolder(folder / "runs" / page.url.rpartition("/")[2])
    recipe = run.recipe.read_text("utf-8")
    assert "kind: nf4" in recipe
    recorded = [one for one in run.read_metrics() if "loss" in one]
    assert [one["step"] for one in recorded] == list(range(1, 13))
    return run


def take_the_adapter_home(page, run):
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the adapter").click()
    with zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())) as packed:
        names = {name.partition("/")[2] for name in packed.namelist()}
        config = json.loads(packed.read(f"{run.name}/adapter_config.json"))
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert config["peft_type"] == "LORA"


def chat_with_it(page):
    page.get_by_role("link", name="Chat with it").click()
    page.get_by_label("Message", exact=True).fill("open 3")
    page.get_by_role("button", name="Ask", exact=True).click()
    turn = page.locator("#turn-1")
    turn.get_by_text("Which is better?").wait_for()
    assert turn.locator("h3").all_inner_texts() == ["Base", "Tuned"]
    page.get_by_role("button", name="Tuned", exact=True).click()
    turn.get_by_text("your vote").wait_for()


def export_it(page, run):
    page.get_by_role("link", name=run.name, exact=True).click()
    page.get_by_role("button", name=re.compile("Make[^:]*: LoRA file for llama.cpp")).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: LoRA file for llama.cpp").click()
    packed = download.value.path().read_bytes()
    assert packed[:4] == b"GGUF"
    assert packed == (run.path / "exports" / "adapter.gguf").read_bytes()


def what_was_done_is_remembered(page):
    page.get_by_role("link", name="Etude", exact=True).click()
    page.get_by_role("heading", name="Today").wait_for()
    assert page.locator("#runs .state.finished").count() == 1
    page.get_by_role("navigation", name="Rooms").get_by_role("link", name="Progress").click()
    assert "1 problem solved of 1 tried" in page.locator(".lede").inner_text()
