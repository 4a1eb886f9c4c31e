"""Live parts of pages: what changes while a page is on its way to the browser is not missed."""

from __future__ import annotations

import pytest
from tests.web.conftest import new_context

from etude.app import drafts
from etude.app.attempts import send
from etude.tuning.runs.folder import RunFolder
from etude.web.rooms.practise import topics

SLUG = "create-tensordataset"


def open_while(page, address, change):
    """Open a page; the change is made when it is written, and before the browser has it."""

    def answer(route):
        answered = route.fetch()
        change()
        route.fulfill(response=answered)

    page.route(address, answer, times=1)
    page.goto(address)


@pytest.fixture
def run(bench):
    """A run at work, as a job's is: with a log."""
    with RunFolder.create("live", bench.runs) as folder:
        folder.log.write_text("the first line\n", "utf-8")
        folder.append_metrics({"step": 1, "total_steps": 9, "loss": 2.0, "seconds": 1.0})
        folder.set_state("running")
        yield folder


@pytest.mark.parametrize("path", ["/lab", "/lab/runs/{run}", "/", "/today/runs"])
def test_a_run_that_ends_while_its_page_is_on_its_way_is_shown_as_ended(served, page, run, path):
    address = served.address + path.format(run=run.name)
    open_while(page, address, lambda: run.set_state("finished"))
    page.locator(".state.finished", has_text="finished").first.wait_for()
    page.locator(".state.running").wait_for(state="detached")


def test_what_was_logged_and_recorded_meanwhile_is_shown(served, page, run):
    def go_on():
        with run.log.open("a", encoding="utf-8") as file:
            file.write("the second line\n")
        run.append_metrics({"step": 2, "total_steps": 9, "loss": 1.0, "seconds": 2.0})

    open_while(page, f"{served.address}/lab/runs/{run.name}", go_on)
    page.locator("#log", has_text="the second line").wait_for()
    page.locator("etude-curves[data-steps='2']").wait_for()
    open_while(
        page,
        f"{served.address}/today/runs",
        lambda: run.append_metrics({"step": 3, "total_steps": 9, "loss": 1.0, "seconds": 3.0}),
    )
    page.get_by_text("step 3 of 9").wait_for()


def test_a_log_that_begins_later_appears(served, page, bench):
    with RunFolder.create("queued", bench.runs) as run:
        run.write_json("job.json", {})
        run.set_state("running")
        page.goto(f"{served.address}/lab/runs/{run.name}")
        assert page.locator("#log").inner_text() == "Nothing is written yet."
        run.log.write_text("it begins\n", "utf-8")
        page.locator("pre#log", has_text="it begins").wait_for()


def test_what_a_run_leaves_appears_when_it_ends_and_it_can_be_deleted(served, page, run):
    page.goto(f"{served.address}/lab/runs/{run.name}")
    delete = page.get_by_role("button", name="Delete")
    assert delete.is_disabled()
    assert page.get_by_role("region", name="Predictions", exact=True).count() == 0
    sample = {"origin": "r:1", "prompt": "p", "reference": "a", "before": "b", "after": "a"}
    run.write_lines("samples.jsonl", [sample])
    run.set_state("finished")
    page.get_by_role("region", name="Predictions", exact=True).wait_for()
    page.locator("#delete button:not([disabled])").wait_for()


def test_the_end_of_a_log_stays_in_sight_and_the_focus_where_it_was(served, page, run):
    run.log.write_text("".join(f"line {n}\n" for n in range(200)), "utf-8")
    page.goto(f"{served.address}/lab/runs/{run.name}")
    log = page.locator("#log")
    log.evaluate("one => { one.scrollTop = one.scrollHeight; one.focus(); }")

    def write(line):
        with run.log.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        page.locator("#log", has_text=line).wait_for()
        return log.evaluate(
            "one => [one.scrollHeight - one.clientHeight - one.scrollTop < 4, "
            "document.activeElement === one]"
        )

    assert write("at the end") == [True, True]
    log.evaluate("one => { one.scrollTop = 40; }")
    assert write("further down") == [False, True]
    assert log.evaluate("one => one.scrollTop") == 40
    stop = page.get_by_role("button", name="Stop and save")
    stop.focus()
    run.set_state("starting")
    page.locator("#standing .state.starting").wait_for()
    assert stop.evaluate("one => one === document.activeElement")


def test_what_a_person_does_survives_what_changes_meanwhile(served, page, run):
    """Text that is selected, a box that is ticked, the focus, and a click that is half done."""
    asked = []
    page.route("**/stop", lambda route: (asked.append(route.request.url), route.fulfill(body="")))
    page.goto(f"{served.address}/lab/runs/{run.name}")
    page.locator("#log").evaluate(
        "one => getSelection().setBaseAndExtent(one.firstChild, 4, one.firstChild, 9)"
    )
    with run.log.open("a", encoding="utf-8") as file:
        file.write("the second line\n")
    page.locator("#log", has_text="the second line").wait_for()
    assert page.evaluate("getSelection().toString()") == "first"
    stop = page.get_by_role("button", name="Stop and save")
    stop.evaluate("one => { window.before = one; }")
    # The run is at work: what is ticked for later stays ticked.
    box = page.locator("#delete input[name=sure]")
    box.check()
    run.set_state("starting")
    page.locator("#standing .state.starting").wait_for()
    assert stop.evaluate("one => one === window.before") and box.is_checked()
    # What is written above it must not move it away from under the pointer.
    stop.hover()
    page.mouse.down()
    with page.expect_response(f"**/lab/runs/{run.name}"):
        run.set_state("running")
    assert asked == [] and page.locator("#standing .state.starting").count() == 1
    page.mouse.up()
    page.wait_for_url("**/stop")
    assert len(asked) == 1


def test_a_press_acts_as_it_was_meant_although_the_button_means_something_else_by_now(
    served, page, run
):
    """Who pressed to stop and save does not end it without saving."""
    asked = []
    page.route(
        "**/stop", lambda route: (asked.append(route.request.post_data), route.fulfill(status=204))
    )
    page.goto(f"{served.address}/lab/runs/{run.name}")
    stop = page.get_by_role("button", name="Stop and save")
    stop.hover()
    page.mouse.down()
    with page.expect_response(f"**/lab/runs/{run.name}"):
        run.ask_to_stop()
        run.set_state("running")
    page.mouse.up()
    at_once = page.get_by_role("button", name="End it at once")
    at_once.wait_for()
    assert len(asked) == 1 and "now" not in asked[0]
    # Whoever uses the keyboard goes on from here, not from the top of the page.
    at_once.focus()
    run.clear_stop()
    run.set_state("starting")
    stop.wait_for()
    assert page.evaluate("document.activeElement.id") == "standing"
    assert len(asked) == 1


def test_what_a_reader_has_opened_and_a_row_stay_when_another_run_appears(served, page, bench, run):
    page.goto(f"{served.address}/lab")
    box = page.get_by_role("checkbox", name=f"Compare {run.name}")
    box.check()
    box.evaluate("one => { window.row = one.closest('tr'); }")
    with RunFolder.create("newer", bench.runs) as newer:
        newer.set_state("running")
        page.get_by_role("link", name=newer.name, exact=True).first.wait_for()
        assert box.is_checked()
        assert box.evaluate("one => one.closest('tr') === window.row")
        assert box.evaluate("one => one === document.activeElement")


def test_what_is_known_of_a_draft_meanwhile_is_shown(served, page, bench):
    draft = drafts.draft_of_text("name: a draft\n")
    known = draft.folder / f"findings-{draft._mark()}.json"

    def find():
        known.write_text('{"error": "the data are not there"}', "utf-8")

    open_while(page, f"{served.address}/lab/new/{draft.id}", find)
    page.locator("#seen", has_text="the data are not there").wait_for()


def test_a_verdict_that_comes_meanwhile_is_shown(served, page, bench, monkeypatch):
    monkeypatch.setattr("etude.practice.judge_process.JudgeProcess.want", lambda *_, **__: None)
    key = send(bench.progress, SLUG, "x = 1\n", visible_only=False)
    open_while(
        page,
        f"{served.address}/practise/{SLUG}?of={key}",
        lambda: judge_by_hand(bench, key),
    )
    page.locator("#attempt.accepted").wait_for()


def judge_by_hand(bench, key):
    """Store a verdict as a judge does."""
    from sqlalchemy import update

    from etude.practice.judge.verdict import Verdict
    from etude.store.practice import Submission

    done = {
        "state": "done",
        "kind": "accepted",
        "finished": bench.progress.clock(),
        "verdict": Verdict("accepted", passed=3, total=3).to_dict(),
    }
    with bench.engine.begin() as connection:
        taken = connection.execute(update(Submission).where(Submission.key == key).values(**done))
    assert taken.rowcount == 1


def test_a_verdict_between_reading_and_asking_for_the_position_is_shown_at_once(
    served, page, bench, monkeypatch
):
    """What is shown is read after its position: no page waits for what it stands behind."""
    monkeypatch.setattr("etude.practice.judge_process.JudgeProcess.want", lambda *_, **__: None)
    key = send(bench.progress, SLUG, "y = 1\n", visible_only=False)
    before = topics.standing_of

    def judged_first(progress, which):
        if which == key and before(progress, which)[0] != "done":
            judge_by_hand(bench, key)
        return before(progress, which)

    monkeypatch.setattr(topics, "standing_of", judged_first)
    page.goto(f"{served.address}/practise/{SLUG}?of={key}")
    assert page.locator("#attempt.accepted").count() == 1


def test_a_part_that_could_not_be_fetched_is_fetched_when_the_server_answers(served, browser, run):
    with new_context(browser, "status of 503") as context:
        page = context.new_page()
        page.goto(served.launch_link())
        page.goto(f"{served.address}/lab")
        row = page.get_by_role("row").filter(has_text=run.name)
        row.get_by_text("running", exact=True).wait_for()
        page.route("**/lab", lambda route: route.fulfill(status=503))
        with page.expect_response("**/lab"):
            run.set_state("finished")
        page.unroute("**/lab")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        row.get_by_text("finished", exact=True).wait_for()
