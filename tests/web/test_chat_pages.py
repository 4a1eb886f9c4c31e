"""The pages of conversations and exports without a browser, and without a process that answers."""

from __future__ import annotations

import json
import re

import pytest
from tests.web.conftest import EVIL, PORT

from etude.app import work
from etude.app.conversations import ChatSettings, Conversations
from etude.app.work import WorkState, work_of_run
from etude.tuning.config.recipe import Recipe
from etude.tuning.runs.folder import RunFolder, remove_run

BOTH = ("base", "tuned")


@pytest.fixture
def post(web, client):
    (cookie,) = client.cookies.values()
    token = web.sessions.read(cookie).csrf

    def send(to, **fields):
        origin = {"Origin": f"http://127.0.0.1:{PORT}"}
        return client.post(to, data={"csrf": token, **fields}, headers=origin)

    return send


@pytest.fixture(autouse=True)
def begun(monkeypatch):
    """Processes that would have been started."""
    found = []
    monkeypatch.setattr(
        work.WorkFolder, "begin", lambda self, action, name, kind="": found.append((name, kind))
    )
    return found


@pytest.fixture
def run(bench):
    with RunFolder.create("asked", bench.runs) as folder:
        fields = {"name": "asked", "task": "chat", "data": {"train": "rows.jsonl"}}
        folder.write_text("recipe.yaml", Recipe.parse(fields).to_yaml())
        folder.adapter.mkdir()
        header = {"a": {"dtype": "F32", "shape": [10, 20], "data_offsets": [0, 800]}}
        text = json.dumps(header).encode()
        weights = len(text).to_bytes(8, "little") + text + bytes(800)
        (folder.adapter / "adapter_model.safetensors").write_bytes(weights)
        summary = {"task": "chat", "total_parameters": 1200, "trainable_parameters": 200}
        folder.write_json("summary.json", summary)
        folder.set_state("finished")
    yield folder
    if folder.path.exists():
        remove_run(folder)


def answered(run, *, blind):
    kept = Conversations(run)
    name = kept.begin(ChatSettings(blind=blind))
    kept.ask(name, {"message": f"hello {EVIL}"}, BOTH)
    for voice in BOTH:
        kept.begin_answer(name, 1, voice)
        kept.end_answer(name, 1, voice, "ended", text=f"{EVIL} {len(voice)}", tokens=3, seconds=1.0)
    return name


def test_a_question_begins_a_conversation_and_what_was_typed_is_not_lost(client, run, post, begun):
    where = f"/lab/runs/{run.name}/chat"
    asked = post(
        where, value="Hello?\r\nYou?", blind="true", temperature="0.5", seed="7", top_p="0.9"
    )
    one = Conversations(run).all()[0]
    assert asked.headers["location"] == f"{where}/{one.id}#now"
    assert one.turns[0].text == "Hello?\nYou?" and one.settings.blind
    sampling = one.settings.sampling
    assert (sampling.temperature, sampling.seed, sampling.top_p) == (0.5, 7, 0.9)
    assert begun == [("converse", "")]
    late = post(f"{where}/{one.id}/say", value=f"Wait {EVIL}")
    assert late.status_code == 422 and "being written" in late.text
    assert "Wait &lt;img" in late.text and EVIL not in late.text
    empty = post(where, value="  ")
    assert empty.status_code == 422 and "Write something first" in empty.text
    for wrong in ({"temperature": "nan"}, {"temperature": "-1"}, {"seed": "-1"}, {"top_p": "0"}):
        assert post(where, value="x", **wrong).status_code == 422
    assert len(Conversations(run).all()) == 1
    # No process answers here, so the page says so, and a stop ends it.
    assert "has ended" in client.get(f"{where}/{one.id}").text
    assert post(f"{where}/{one.id}/stop").status_code == 303
    assert Conversations(run).find(one.id).waiting is None


def test_a_blind_page_names_no_voice_before_the_vote(client, run, post):
    name = answered(run, blind=True)
    where = f"/lab/runs/{run.name}/chat/{name}"
    page = client.get(where).text
    assert EVIL not in page and "&lt;img" in page
    main = page[page.index("<main") : page.index("<footer")].lower()
    assert not re.search(r"\b(base|tuned)\b", main)
    assert re.findall(r"<h3>(\w+)", page) == ["Left", "Right"]
    assert "3 tokens" not in page  # how long it took may tell them apart
    assert post(f"{where}/vote", turn="1", vote="left").status_code == 303
    shown = client.get(where).text
    left = Conversations(run).find(name).turns[0].answers[0].voice
    assert f"{left.capitalize()} <span" in shown and "3 tokens" in shown
    assert post(f"{where}/vote", turn="1", vote="left").status_code == 422
    assert post(f"{where}/vote", turn="1", vote="both").status_code == 422
    listed = client.get(f"/lab/runs/{run.name}/chat").text
    assert "1 vote on this run" in listed and EVIL not in listed
    topic = f"chat/{run.name}.{name}"
    news = client.get("/events/after", params={"since": f"{topic}@0"}).json()
    assert f'at="{news["at"][topic]}"' in shown
    assert post(f"{where}/delete").status_code == 303
    assert client.get(where).status_code == 404


def test_a_run_that_cannot_be_asked_says_why(client, run):
    with run:
        run.set_state("running")
        answer = client.get(f"/lab/runs/{run.name}/chat")
        assert answer.status_code == 409 and "at work" in answer.text
        run.set_state("finished")
    assert client.get(f"/lab/runs/{run.name}/chat/../../x").status_code == 404
    assert client.get(f"/lab/runs/{run.name}/chat/{'0' * 16}").status_code == 404


def test_sizes_are_said_before_and_files_are_sent_as_attachments(client, run, post, begun):
    page = client.get(f"/lab/runs/{run.name}").text
    # 1,000 numbers of the base in 2 and 4 bytes, 200 of the adapter.
    assert "bfloat16, 2.00 kB" in page and "float32, 4.00 kB" in page
    assert "f16, 400 B" in page and "f32, 800 B" in page
    where = f"/lab/runs/{run.name}/exports"
    assert post(where, what="merged", kind="bfloat16").status_code == 303
    assert post(where, what="gguf", kind="f32").status_code == 303
    assert begun == [("merged", "bfloat16"), ("gguf", "f32")]
    for what, kind in (("merged", "nf4"), ("../x", "f16"), ("peft", "f16")):
        assert post(where, what=what, kind=kind).status_code == 422
    (run.path / "work").mkdir()
    work_of_run(run).write(
        WorkState("merge", "merged", "float32", 1.0, None, ended=2.0, problem=f"no {EVIL}")
    )
    page = client.get(f"/lab/runs/{run.name}").text
    assert "Not made: no &lt;img" in page and EVIL not in page
    assert client.get(f"/lab/runs/{run.name}/adapter.gguf").status_code == 404
    (run.path / "exports/peft").mkdir(parents=True)
    (run.path / "exports/peft/adapter_config.json").write_text("{}")
    (run.path / "exports/adapter.gguf").write_bytes(b"GGUF")
    for name in ("adapter.gguf", "peft.zip"):
        sent = client.get(f"/lab/runs/{run.name}/{name}")
        assert sent.headers["content-disposition"].startswith("attachment")
        assert sent.headers["content-security-policy"] == "sandbox"
    assert client.get(f"/lab/runs/{run.name}/adapter.gguf").content == b"GGUF"
    assert post(f"{where}/delete", what="gguf").status_code == 303
    assert post(f"{where}/delete", what="gguf").status_code == 422
    assert not (run.path / "exports/adapter.gguf").exists()
