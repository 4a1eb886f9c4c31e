"""Conversations with a run: what is kept of them, and the process that answers."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest
from tests.app.trained import endless, train

from etude.app import converse_process, work
from etude.app.chatting import Sampling
from etude.app.conversations import ChatSettings, Conversations
from etude.app.conversing import conversable, end_conversing
from etude.app.jobs import remove_job
from etude.app.trying import shown
from etude.core.errors import RunError
from etude.tuning.runs.folder import RunFolder
from etude.tuning.runs.process import is_process, send

BOTH = ("base", "tuned")


@pytest.fixture
def kept(tmp_path):
    return Conversations(RunFolder.create("asked", tmp_path / "runs"))


def asked(kept, text="hello", **settings):
    name = kept.begin(ChatSettings(**settings))
    kept.ask(name, {"message": text}, BOTH)
    return name


def answered(kept, name, turn, voice, text):
    kept.begin_answer(name, turn, voice)
    kept.add_text(name, turn, voice, text)
    kept.end_answer(name, turn, voice, "ended", text=text, tokens=2, seconds=0.5)


def test_what_was_written_is_there_while_it_is_written(kept):
    name = asked(kept)
    assert not kept.find(name).turns[0].answers[0].begun
    before = kept.position(name)
    kept.begin_answer(name, 1, "base")
    kept.add_text(name, 1, "base", "Grüße ")
    kept.add_text(name, 1, "base", "an ")
    assert kept.position(name) != before
    base, tuned = kept.find(name).turns[0].answers
    assert (base.text, base.how, base.begun, tuned.begun) == ("Grüße an", None, True, False)
    # A piece that a kill has cut in the middle of a character.
    with kept.text_file(name, 1, "base").open("ab") as stream:
        stream.write("ü".encode()[:1])
    assert kept.find(name).turns[0].answers[0].text == "Grüße an"
    kept.end_answer(name, 1, "base", "ended", text="Grüße an alle")
    assert kept.find(name).waiting.number == 1
    answered(kept, name, 1, "tuned", "Hallo")
    one = kept.find(name)
    assert one.waiting is None and [a.text for a in one.turns[0].answers] == [
        "Grüße an alle",
        "Hallo",
    ]
    assert one.title == "hello" and kept.all() == [one]


def test_a_line_that_a_full_disk_has_cut_spoils_no_other(kept):
    name = asked(kept)
    with (kept.folder / name / "events.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "ended", "turn": 1, "voi')
    answered(kept, name, 1, "base", "one")
    answered(kept, name, 1, "tuned", "two")
    assert [answer.text for answer in kept.find(name).turns[0].answers] == ["one", "two"]


def test_one_question_at_a_time_and_none_without_words(kept):
    name = asked(kept)
    with pytest.raises(RunError, match="being written"):
        kept.ask(name, {"message": "again"}, BOTH)
    with pytest.raises(RunError, match="being written"):
        kept.remove(name)
    with pytest.raises(RunError, match="write something"):
        kept.ask(name, {"message": " \n"}, BOTH)
    with pytest.raises(RunError, match="at most"):
        kept.ask(name, {"message": "x" * 100_001}, BOTH)
    for unknown in ("..", "0" * 16, f"../{name}", ""):
        with pytest.raises(RunError, match="no such conversation"):
            kept.find(unknown)


def test_there_is_one_vote_a_turn_and_the_tally_counts_voices_not_sides(kept):
    names = [asked(kept, blind=True) for _ in range(40)]
    sides = set()
    for name in names:
        with pytest.raises(RunError, match="no two finished"):
            kept.vote(name, 1, "left")
        for voice in BOTH:
            answered(kept, name, 1, voice, voice)
        turn = kept.find(name).turns[0]
        left = turn.answers[0].voice
        sides.add(left)
        kept.vote(name, 1, "left" if left == "tuned" else "right")
        assert kept.find(name).turns[0].winner == "tuned"
        with pytest.raises(RunError, match="voted on already"):
            kept.vote(name, 1, "tie")
    # 40 equal draws are a chance of 2 in 10^12.
    assert sides == {"base", "tuned"}
    plain = asked(kept)
    assert [one.voice for one in kept.find(plain).turns[0].answers] == ["base", "tuned"]
    for voice in BOTH:
        answered(kept, plain, 1, voice, voice)
    kept.vote(plain, 1, "tie")
    tally = kept.tally(kept.all())
    assert (tally.tuned, tally.base, tally.tie, tally.neither, tally.total) == (40, 0, 1, 0, 41)
    kept.remove(plain)
    assert kept.tally(kept.all()).total == 40


def test_a_damaged_conversation_hides_no_other(kept):
    good, bad = asked(kept), asked(kept)
    (kept.folder / bad / "events.jsonl").write_text('{"kind": "asked", "turn": "x"}\n[1]\n')
    assert [one.id for one in kept.all()] == [good]
    with pytest.raises(RunError, match="damaged"):
        kept.find(bad)


# -- with a process ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tiny_llama, tmp_path_factory):
    base = tmp_path_factory.mktemp("chats") / "runs"
    base.mkdir()
    model = endless(tiny_llama(layers=1, tied=False, max_position_embeddings=60_000))
    train(model, base, "chat", quant={"kind": "nf4"})
    train(model, base, "class", task="text-classification", quant={"kind": "none"})
    yield base
    for run in base.iterdir():
        end_conversing(RunFolder(run))


def run_named(runs, name):
    return next(RunFolder(path) for path in runs.iterdir() if path.name.startswith(name))


def wait(condition):
    """Wait for another process; its end without what is awaited fails."""
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def answer_of(opened, name, turn):
    wait(lambda: opened.kept.find(name).waiting is None)
    found = opened.kept.find(name).turns[turn - 1]
    assert [answer.how for answer in found.answers] == ["cut"] * len(found.answers), found
    return [answer.text for answer in found.answers]


@pytest.mark.integration
def test_answers_are_those_of_etude_chat_and_each_voice_goes_on_with_its_own(runs):
    from etude.app.chatting import open_chat
    from etude.tuning.data.schema import Message

    opened = conversable(run_named(runs, "chat"))
    sampling = Sampling(12, 0.8, 0.9, 5)
    name = opened.begin(ChatSettings(False, "Be brief.", 12, 0.8, 0.9, 5), {"message": "open 3"})
    first = answer_of(opened, name, 1)
    process = opened.process()
    assert process.condition == "running" and process.step == converse_process.READY
    opened.ask(name, {"message": "and 4?"})
    second = answer_of(opened, name, 2)
    # The same process, with the model in its memory.
    assert opened.process().process == process.process
    chat = open_chat(str(opened.run.path), system="Be brief.")
    for place, voice in enumerate(BOTH):
        turns = [Message("user", "open 3")]
        said = chat.answer(voice, turns, sampling, lambda _: None)
        assert (said.text, said.how, said.tokens) == (first[place], "cut", 12)
        turns += [Message("assistant", said.text), Message("user", "and 4?")]
        assert chat.answer(voice, turns, sampling, lambda _: None).text == second[place]
    assert first[0] != first[1]


@pytest.mark.integration
def test_an_answer_is_stopped_and_what_was_written_stays(runs):
    opened = conversable(run_named(runs, "chat"))
    name = opened.begin(ChatSettings(max_new_tokens=50_000), {"message": "open 3"})
    wait(lambda: opened.kept.find(name).turns[0].answers[0].text)
    shown_then = opened.kept.find(name).turns[0].answers[0].text
    opened.stop(name)
    wait(lambda: opened.kept.find(name).waiting is None)
    base, tuned = opened.kept.find(name).turns[0].answers
    assert base.how == "stopped" and base.text.startswith(shown_then) and base.tokens > 0
    assert (tuned.how, tuned.text) == ("stopped", "")
    # It goes on with the next question.
    opened.ask(name, {"message": "and then?"})
    opened.stop(name)
    wait(lambda: opened.kept.find(name).waiting is None)


@pytest.mark.integration
def test_a_killed_process_is_seen_and_the_question_is_answered_by_another(runs):
    opened = conversable(run_named(runs, "chat"))
    name = opened.begin(ChatSettings(max_new_tokens=50_000), {"message": "open 5"})
    wait(lambda: opened.kept.find(name).turns[0].answers[0].text)
    killed = opened.process().process
    send(killed, signal.SIGKILL)
    wait(lambda: opened.process().condition == "interrupted")
    before = opened.kept.find(name).turns[0].answers[0]
    assert before.text and before.how is None
    opened.wake()
    wait(lambda: opened.process().process not in (None, killed))
    wait(lambda: opened.kept.find(name).turns[0].answers[0].text)
    # Without a process, a stop ends the answers with what there is.
    send(opened.process().process, signal.SIGKILL)
    wait(lambda: opened.process().condition == "interrupted")
    opened.stop(name)
    base = opened.kept.find(name).turns[0].answers[0]
    assert base.how == "stopped" and base.text


@pytest.mark.integration
def test_a_disk_that_becomes_full_fails_the_answer_and_keeps_what_was_written(runs, tmp_path, disk):
    run = RunFolder(tmp_path / "runs" / "full")
    without = shutil.ignore_patterns("chats", "work")
    shutil.copytree(run_named(runs, "chat").path, run.path, ignore=without)
    (disk.place / "chats").mkdir()
    (run.path / "chats").symlink_to(disk.place / "chats")
    opened = conversable(run)
    disk.fill(leaving=12 * 1024)
    try:
        name = opened.begin(ChatSettings(max_new_tokens=50_000), {"message": "open 3"})
        wait(lambda: opened.kept.find(name).waiting is None)
        base, tuned = opened.kept.find(name).turns[0].answers
        assert base.how == tuned.how == "failed" and "disk is full" in base.problem
        written = opened.kept.text_file(name, 1, "base").read_text("utf-8", "ignore")
        assert len(written) > 1000 and base.text == written.strip()
        # The process lives, and answers as soon as there is space.
        process = opened.process()
        assert process.condition == "running"
        disk.free()
        opened.ask(name, {"message": "and then?"})
        wait(lambda: opened.kept.find(name).turns[1].answers[0].text)
        assert opened.process().process == process.process
        opened.stop(name)
        wait(lambda: opened.kept.find(name).waiting is None)
        assert opened.kept.find(name).turns[1].answers[0].how == "stopped"
    finally:
        end_conversing(run)


@pytest.mark.integration
def test_a_classifier_is_tried_and_its_process_lets_the_idle_one_end(runs):
    chat, opened = conversable(run_named(runs, "chat")), conversable(run_named(runs, "class"))
    assert chat.compared and not opened.compared and not opened.converses
    name = chat.begin(ChatSettings(max_new_tokens=2), {"message": "open 3"})
    answer_of(chat, name, 1)
    idle = chat.process().process
    (field,) = opened.fields
    tried = opened.begin(ChatSettings(), {field.name: "good 3"})
    wait(lambda: opened.kept.find(tried).waiting is None)
    (answer,) = opened.kept.find(tried).turns[0].answers
    assert (answer.voice, answer.how) == ("tuned", "ended")
    from etude.tuning.predictor import load

    (expected,) = load(opened.run).predict(["good 3"])
    assert answer.prediction["label"] == expected.text
    assert answer.prediction["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    seen = shown(answer.prediction, "good 3")
    assert seen.headline == expected.text and {bar.name for bar in seen.bars} == {"good", "bad"}
    assert sum(bar.share for bar in seen.bars) == pytest.approx(1)
    wait(lambda: not is_process(idle))
    assert chat.process().condition == "done"


@pytest.mark.integration
def test_a_process_ends_when_it_is_idle_and_when_its_run_is_deleted(
    runs, tiny_llama, tmp_path, monkeypatch
):
    base = tmp_path / "runs"
    base.mkdir()
    run = train(tiny_llama(layers=1), base, "gone", quant={"kind": "none"})
    opened = conversable(run)
    name = opened.begin(ChatSettings(max_new_tokens=2), {"message": "open 3"})
    answer_of(opened, name, 1)
    child = work._children[-1]
    assert remove_job(str(run.path), base) > 0
    child.wait(60)
    assert not run.path.exists()
    # In this process, so that nobody waits for minutes.
    monkeypatch.setattr(converse_process, "IDLE_SECONDS", 0.0)
    run = train(tiny_llama(layers=1), base, "idle", quant={"kind": "none"})
    opened = conversable(run)
    name = opened.kept.begin(ChatSettings(max_new_tokens=2))
    opened.kept.ask(name, {"message": "open 3"}, BOTH)
    (run.path / "work").mkdir()
    before = signal.getsignal(signal.SIGTERM)
    work.main(str(run.path / "work"), "converse", "converse", "")
    signal.signal(signal.SIGTERM, before)
    assert opened.kept.find(name).waiting is None
    state = opened.process()
    assert state.condition == "done" and state.process["pid"] == os.getpid()


def test_a_run_that_is_at_work_or_has_saved_nothing_is_not_asked(tmp_path):
    with RunFolder.create("new", tmp_path / "runs") as run:
        with pytest.raises(RunError, match="saved nothing"):
            conversable(run)
        run.set_state("running")
        with pytest.raises(RunError, match="at work"):
            conversable(run)


def test_marked_texts_are_whole_whatever_the_entities():
    spans = [
        {"start": 4, "end": 7, "label": "X", "probability": 0.5},
        {"start": 0, "end": 3, "label": "Y", "probability": 0.9},
        {"start": 6, "end": 9, "label": "Z", "probability": 0.1},
    ]
    seen = shown({"spans": spans}, "one two three")
    assert "".join(piece.text for piece in seen.stretches) == "one two three"
    assert [(p.text, p.label) for p in seen.stretches if p.label] == [("one", "Y"), ("two", "X")]
