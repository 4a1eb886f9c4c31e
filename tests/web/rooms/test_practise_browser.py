"""Practise in a real browser: by keyboard alone, in two tabs, without scripts."""

from __future__ import annotations

import re

import pytest
from tests.practice.scripted_model import Model
from tests.web.conftest import EVIL

from etude.app.attempts import await_verdict, send
from etude.practice.problem import find_problem

pytestmark = pytest.mark.judge
SLUG = "create-tensordataset"
LONG_MS = 120_000


@pytest.fixture(scope="module")
def problem():
    return find_problem(SLUG)


@pytest.fixture
def wrong(problem):
    return next(source for name, source, _ in problem.wrong if name == "squeezed.py")


def typed(page):
    return page.evaluate("document.querySelector('textarea').value")


def focused(page):
    """Return the name and the text of what has the focus, within a shadow root, too."""
    return page.evaluate(
        """() => {
          let one = document.activeElement;
          return [one.tagName.toLowerCase(), (one.textContent || "").trim().slice(0, 40)];
        }"""
    )


def go_to_editor(page):
    """Press Tab until the editor has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page)[0] == "etude-editor":
            return
    raise AssertionError("Tab does not reach the editor")


def replace_code(page, source):
    page.keyboard.press("Control+a")
    # As a paste, which brings its own indentation.
    page.keyboard.insert_text(source)
    assert typed(page) == source


def press_button(page, name):
    page.keyboard.press("Escape")
    for _ in range(6):
        page.keyboard.press("Tab")
        if focused(page) == ["button", name]:
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"Tab does not reach {name}")


def sentence(page):
    heading = page.locator("#attempt:not(.pending) h2")
    heading.wait_for(timeout=LONG_MS)
    return heading.inner_text()


@pytest.mark.parametrize("page", [{"viewport": {"width": 1440, "height": 900}}], indirect=True)
def test_create_tensordataset_is_solved_by_keyboard_alone(served, page, problem, wrong):
    page.goto(f"{served.address}/practise/{SLUG}")
    go_to_editor(page)
    page.keyboard.press("Tab")
    assert focused(page)[0] == "etude-editor", "Tab indents"
    replace_code(page, wrong)
    press_button(page, "Submit")
    assert "the shape" in sentence(page)
    assert page.locator("#attempt .kind").inner_text().count("wrong answer: shape") == 1
    assert page.evaluate("document.activeElement.id") == "verdict"

    page.keyboard.press("Shift+Tab")
    assert focused(page) == ["button", "Submit"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert focused(page)[0] == "etude-editor"
    replace_code(page, problem.solution)
    page.keyboard.press("Control+Shift+Enter")
    page.get_by_role("heading", name=re.compile("All .* tests pass")).wait_for(timeout=LONG_MS)
    address = page.url
    page.reload()
    assert "tests pass" in sentence(page)
    assert typed(page) == problem.solution
    assert "of=" in address


def test_visible_tests_show_which_entries_differ(served, page, problem):
    page.goto(f"{served.address}/practise/{SLUG}")
    page.locator("etude-editor .cm-content").click()
    source = problem.solution.replace(
        "(features, labels)\n    return", "(-features, labels)\n    return"
    )
    replace_code(page, source)
    page.keyboard.press("Control+Enter")
    page.locator("#attempt mark").first.wait_for(timeout=LONG_MS)
    assert page.locator("#attempt mark").count() == 12
    assert (
        page.locator("#attempt mark").first.evaluate(
            "one => getComputedStyle(one).textDecorationLine"
        )
        == "underline"
    ), "not by colour alone"


def test_two_tabs_never_lose_code(served, page):
    slug = "rms-norm"
    page.goto(f"{served.address}/practise/{slug}")
    other = page.context.new_page()
    other.goto(f"{served.address}/practise/{slug}")
    write(page, "first = 1\n")
    page.get_by_text("Saved", exact=True).wait_for()
    write(other, "second = 2\n")
    other.get_by_text("Two tabs have changed this code").wait_for()
    assert "first = 1" in read_draft(served)
    assert typed(other) == "second = 2\n", "what is being typed stays"
    page.reload()
    assert typed(page) == "first = 1\n"
    assert "second = 2" in page.locator("#conflict").inner_text()
    page.get_by_role("button", name="Go on with this code").click()
    page.wait_for_url("**#answer")
    assert typed(page) == "second = 2\n"
    assert page.locator("#conflict .banner").count() == 0
    other.close()


def test_a_tab_that_is_looked_at_again_takes_up_what_another_saved(served, page):
    slug = "rotary-embedding"
    page.goto(f"{served.address}/practise/{slug}")
    other = page.context.new_page()
    other.goto(f"{served.address}/practise/{slug}")
    write(other, "newer = 1\n")
    other.get_by_text("Saved", exact=True).wait_for()
    other.close()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_text("Taken from another tab").wait_for()
    assert typed(page) == "newer = 1\n"


def test_what_was_typed_last_is_saved_when_the_page_is_left(served, page):
    slug = "lora-forward"
    page.goto(f"{served.address}/practise/{slug}")
    write(page, "last = 1\n")
    page.goto(f"{served.address}/practise")
    page.goto(f"{served.address}/practise/{slug}")
    assert typed(page) == "last = 1\n"


def test_tab_walks_the_page_in_the_order_in_which_it_is_read(served, page):
    page.goto(f"{served.address}/practise/k-fold-indices")
    stops = []
    for _ in range(20):
        page.keyboard.press("Tab")
        tag, text = focused(page)
        if tag == "etude-editor":
            page.keyboard.press("Escape")
        stops.append("editor" if tag == "etude-editor" else text)
        if text.startswith("Give me a hint"):
            break
    rooms = stops[1 : stops.index("Machine learning")]
    assert stops[0] == "Skip to the page"
    assert "Practise" in rooms
    assert stops[len(rooms) + 1 :] == [
        "Machine learning",
        "Your submissions",
        "Lesson and solution",
        "editor",
        "Run visible tests",
        "Submit",
        "Give me a hint (0 of 3 taken)",
    ]


def test_the_server_says_why_code_is_not_saved(served, browser):
    # A page of its own, as the console reports the refusal.
    page = browser.new_context().new_page()
    page.goto(served.launch_link())
    page.goto(f"{served.address}/practise/pca-by-svd")
    page.evaluate("document.querySelector('[name=csrf]').value = 'forged'")
    write(page, "kept = 1\n")
    page.get_by_text("Not saved: The page that it came from is no longer valid").wait_for()
    assert typed(page) == "kept = 1\n"
    page.context.close()


def write(page, text):
    page.locator("etude-editor .cm-content").click()
    replace_code(page, text)


def read_draft(served, slug="rms-norm"):
    return served.bench.drafts.read(slug).source


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_a_problem_is_solved_without_scripts(served, page, problem, wrong):
    page.goto(f"{served.address}/practise?q=TensorDataset&state=")
    page.get_by_label("Search").fill("pairs of tensors TensorDataset")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="Create TensorDataset").last.click()
    page.get_by_label("Your code").fill(wrong)
    page.get_by_role("button", name="Submit", exact=True).click()
    assert "the shape" in sentence(page)
    page.get_by_role("button", name="Give me a hint").click()
    page.get_by_text("Hint 1 of 3").wait_for()
    page.get_by_label("Your code").fill(problem.solution)
    page.get_by_role("button", name="Submit", exact=True).click()
    assert "tests pass" in sentence(page)
    page.get_by_role("link", name=re.compile("Read the lesson")).click()
    page.get_by_role("heading", name="The author's solution").wait_for()


def test_the_list_is_searched_as_one_types(served, page):
    page.goto(f"{served.address}/practise")
    page.get_by_label("Search").press_sequentially("tensordataset")
    page.get_by_role("status").filter(has_text="fit").wait_for()
    assert page.locator("#problems li").count() < 10
    assert "q=tensordataset" in page.url
    assert page.evaluate("document.activeElement.id") == "q"
    page.get_by_label("Difficulty").select_option("hard")
    page.wait_for_url("**difficulty=hard**")


def test_hints_come_without_leaving_the_page(served, page):
    page.goto(f"{served.address}/practise/perplexity")
    page.get_by_role("button", name=re.compile("Give me a hint")).click()
    page.get_by_text("Hint 1 of 3").wait_for()
    page.get_by_role("button", name=re.compile("Next hint")).click()
    page.get_by_text("Hint 2 of 3").wait_for()
    assert focused(page)[0] == "button"


def test_a_model_explains_while_the_page_shows_it(served, page, monkeypatch):
    model = Model(lambda _: "On “one feature”: what does `squeeze` do <b>here</b>? " * 3)
    monkeypatch.setenv("ETUDE_LLM_URL", model.endpoint.url)
    monkeypatch.setenv("ETUDE_LLM_MODEL", model.endpoint.model)
    key = send(served.bench.progress, "masked-softmax", "x = 1\n", visible_only=False)
    served.bench.judge.want()
    assert await_verdict(served.bench.progress, key, LONG_MS / 1000)
    page.goto(f"{served.address}/practise/masked-softmax?of={key}")
    page.get_by_label("Explain my failure").fill("why?")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="scripted-1 explains").wait_for()
    page.get_by_role("button", name="It helped").click()
    page.get_by_text("You said that it helped").wait_for()
    assert page.locator("#explanation b").count() == 0
    assert served.bench.explainer.kept(key).helped is True
    assert "of=" in page.url
    model.server.shutdown()


def test_hostile_code_stays_text_in_the_editor_and_in_its_verdict(served, page):
    page.goto(f"{served.address}/practise/kv-cache")
    write(page, f"raise ValueError('''{EVIL}</textarea></pre>''')\n")
    page.get_by_role("button", name="Submit", exact=True).click()
    sentence(page)
    page.reload()
    page.goto(f"{served.address}/practise/kv-cache/history")
    page.get_by_text("The whole code").click()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
