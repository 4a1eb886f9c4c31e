"""Chat with base and tuned model in a browser: as it is written, blind, killed, without scripts."""

from __future__ import annotations

import re

import pytest
from tests.app.trained import endless, train
from tests.web.server_process import ServerProcess
from tests.web.test_lab_browser import MINUTES

from etude.app.conversing import conversable, end_conversing

pytestmark = pytest.mark.integration
TURN = "#turn-1"


@pytest.fixture(scope="module")
def model(tiny_llama):
    # An answer as long as a test wants it: it ends when it is stopped, if the most likely token is
    # taken each time.
    return endless(tiny_llama(layers=1, tied=False, max_position_embeddings=60_000))


@pytest.fixture(scope="module")
def run(bench, model):
    folder = train(model, bench.runs, "spoken", quant={"kind": "nf4"})
    yield folder
    end_conversing(folder)


def answers(page):
    return page.locator(f"{TURN} .answer .said")


def letters(text):
    """What is left of a text when a browser has laid out its spaces and control characters."""
    return re.sub("[^A-Za-z]", "", text)


def ask(page, text, *, tokens, temperature="0.8", blind=False):
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_text("How it answers").click()
    page.get_by_label("Tokens at most").fill(str(tokens))
    page.get_by_label("Temperature").fill(temperature)
    if blind:
        page.get_by_label("Blind:").check()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_url(re.compile("/chat/[0-9a-f]{16}"))


def test_a_blind_conversation_from_the_runs_page_to_a_vote_and_on(served, page, run):
    page.set_default_timeout(MINUTES)
    page.goto(f"{served.address}/lab/runs/{run.name}")
    page.get_by_role("link", name="Chat with it").click()
    ask(page, "open 3 <b>", tokens=12, blind=True)
    # Both answers come by themselves, and nothing tells them apart.
    page.get_by_text("Which is better?").wait_for()
    seen = answers(page).all_inner_texts()
    assert len(seen) == 2 and all(seen) and seen[0] != seen[1]
    turn = page.locator(TURN)
    assert turn.locator("h3").all_inner_texts() == ["Left", "Right"]
    main = page.locator("main").inner_html().lower()
    assert not re.search(r"\b(base|tuned)\b", re.sub(r"<footer.*", "", main, flags=re.DOTALL))
    page.get_by_role("button", name="Left", exact=True).click()
    page.get_by_text("your vote").wait_for()
    names = [re.sub(r"\s.*", "", name) for name in turn.locator("h3").all_inner_texts()]
    assert sorted(names) == ["Base", "Tuned"]
    one = conversable(run).kept.all()[0]
    assert [a.voice.capitalize() for a in one.turns[0].answers] == names
    assert one.turns[0].winner == one.turns[0].answers[0].voice
    assert "1 vote on this run" in page.locator("footer").inner_text()
    page.get_by_label("Message", exact=True).fill("and 4?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#turn-2").get_by_text("Which is better?").wait_for()
    page.reload()
    assert answers(page).all_inner_texts() == seen
    page.get_by_role("link", name="New conversation").click()
    page.get_by_role("link", name="open 3 <b>").click()
    page.get_by_role("button", name="Delete this conversation").click()
    page.wait_for_url("**/chat")
    assert page.get_by_role("link", name="open 3 <b>").count() == 0


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_a_reload_shows_more_and_stop_keeps_it(served, page, run):
    page.set_default_timeout(MINUTES)
    page.goto(f"{served.address}/lab/runs/{run.name}/chat")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert "/chat/" not in page.url, "the browser asks for a message first"
    ask(page, "open 5", tokens=50_000, temperature="0")
    opened, name = conversable(run), re.search("[0-9a-f]{16}", page.url)[0]
    written = opened.kept.text_file(name, 1, "base")
    for _ in range(2400):
        if written.exists() and written.stat().st_size > 40:
            break
        page.wait_for_timeout(100)
    page.get_by_role("link", name="Show what was written meanwhile").click()
    before = answers(page).first.inner_text()
    assert before
    size = written.stat().st_size
    for _ in range(2400):
        if written.stat().st_size > size + 40:
            break
        page.wait_for_timeout(100)
    page.get_by_role("link", name="Show what was written meanwhile").click()
    after = answers(page).first.inner_text()
    assert after.startswith(before) and len(after) > len(before)
    page.get_by_role("button", name="Stop").click()
    for _ in range(2400):
        if opened.kept.find(name).waiting is None:
            break
        page.wait_for_timeout(100)
    page.reload()
    assert answers(page).first.inner_text().startswith(after)
    assert "Stopped after" in page.locator(TURN).inner_text()
    page.get_by_role("button", name="Neither is good").click()
    assert "neither is good" in page.locator(TURN).inner_text()


def test_a_server_killed_in_mid_answer_loses_nothing_that_was_written(browser, tmp_path, model):
    runs = tmp_path / "runs"
    runs.mkdir()
    run = train(model, runs, "spoken", quant={"kind": "none"})
    server = ServerProcess(runs)
    page = browser.new_context().new_page()
    page.set_default_timeout(MINUTES)
    try:
        page.goto(server.link())
        page.goto(f"{server.address}/lab/runs/{run.name}/chat")
        ask(page, "open 7", tokens=50_000, temperature="0")
        page.evaluate("window.opened = 'once'")
        answers(page).first.wait_for()
        for _ in range(2400):
            if len(answers(page).first.inner_text()) > 40:
                break
            page.wait_for_timeout(100)
        server.kill()
        shown = answers(page).first.inner_text()
        opened, name = conversable(run), re.search("[0-9a-f]{16}", page.url)[0]
        written = opened.kept.text_file(name, 1, "base")
        assert letters(written.read_text("utf-8")).startswith(letters(shown))
        size = written.stat().st_size
        for _ in range(2400):
            if written.stat().st_size > size + 40:
                break
            page.wait_for_timeout(100)
        assert written.stat().st_size > size, "the answer does not need the server"
        port = server.port
        server.start()
        assert server.port == port
        # The page goes on by itself, and its button acts although the text grows meanwhile.
        for _ in range(2400):
            if len(answers(page).first.inner_text()) > len(shown) + 80:
                break
            page.wait_for_timeout(100)
        more = answers(page).first.inner_text()
        assert letters(more).startswith(letters(shown)) and len(more) > len(shown) + 80
        assert page.evaluate("window.opened") == "once", "it was not loaded again"
        page.get_by_role("button", name="Stop").click()
        page.locator(TURN).get_by_text("Stopped after").wait_for()
        assert letters(answers(page).first.inner_text()).startswith(letters(more))
    finally:
        server.kill()
        end_conversing(run)
        page.context.close()


def test_a_classifier_is_tried_with_its_probabilities(served, page, bench, tiny_llama):
    page.set_default_timeout(MINUTES)
    run = train(
        tiny_llama(layers=1),
        bench.runs,
        "sorted",
        task="text-classification",
        quant={"kind": "none"},
    )
    page.goto(f"{served.address}/lab/runs/{run.name}")
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("Text", exact=True).fill("good 3")
    page.get_by_role("button", name="Predict").click()
    page.locator(f"{TURN} .bars").wait_for()
    assert page.locator(f"{TURN} .headline").inner_text() in ("good", "bad")
    assert len(page.locator(f"{TURN} .bars li").all()) == 2
    end_conversing(run)


def test_an_adapter_is_made_into_a_file_for_llama_cpp_and_downloaded(served, page, run):
    page.set_default_timeout(MINUTES)
    page.goto(f"{served.address}/lab/runs/{run.name}")
    page.get_by_role("button", name=re.compile("Make[^:]*: LoRA file for llama.cpp")).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: LoRA file for llama.cpp").click()
    assert download.value.path().read_bytes() == (run.path / "exports/adapter.gguf").read_bytes()
    page.get_by_role("button", name=re.compile("Delete, .*: LoRA file for llama.cpp")).click()
    page.get_by_role("button", name=re.compile("Make[^:]*: LoRA file for llama.cpp")).wait_for()
    assert not (run.path / "exports/adapter.gguf").exists()
