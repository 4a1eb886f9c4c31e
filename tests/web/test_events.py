"""The stream of events: what comes, from where, and after an absence."""

from __future__ import annotations

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from etude.app.run_news import MetricsTail
from etude.tuning.runs.folder import RunFolder
from etude.web.events import Hub, parsed
from etude.web.rooms import ROOMS

SOURCES = [source for room in ROOMS for source in room.sources]


@pytest.fixture
def run(bench):
    with RunFolder.create("events", bench.runs) as folder:
        folder.append_metrics({"step": 1})
        yield folder


def in_a_loop(scenario):
    """Run it beside the loop that a browser's tests leave running in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, scenario).result()


def ask(client, since):
    answer = client.get("/events/after", params={"since": since})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_metrics_are_read_on_from_any_position_without_a_gap_or_a_repetition(client, run):
    topic = f"run/{run.name}"
    first = ask(client, f"{topic}@")
    run.append_metrics({"step": 2})
    run.append_metrics({"step": 3})
    then = ask(client, f"{topic}@{first['at'][topic]}")
    assert [event["data"]["records"] for event in first["events"]] == [[{"step": 1}]]
    assert [event["data"]["records"] for event in then["events"]] == [[{"step": 2}, {"step": 3}]]
    assert then["events"][0]["from"] == first["at"][topic]
    assert not then["events"][0]["data"]["anew"]
    assert ask(client, f"{topic}@{then['at'][topic]}")["events"] == []


def test_a_line_that_is_half_written_comes_when_it_is_whole(run):
    tail = MetricsTail(run.metrics)
    *_, portion = tail.after("")
    with run.metrics.open("ab") as file:
        file.write(b'{"step": ')
        file.flush()
        assert list(tail.after(portion.position)) == []
        file.write(b"2}\n")
    (portion,) = tail.after(portion.position)
    assert portion.records == [{"step": 2}]


def test_a_resumed_run_begins_anew(run):
    tail = MetricsTail(run.metrics)
    run.append_metrics({"step": 2})
    *_, portion = tail.after("")
    run.truncate_metrics(1)
    run.append_metrics({"step": 2, "again": True})
    (portion,) = tail.after(portion.position)
    assert portion.anew
    assert portion.records == [{"step": 1}, {"step": 2, "again": True}]


def test_long_metrics_come_in_portions_of_which_the_first_begins_anew(run):
    run.write_lines("metrics.jsonl", [{"step": step} for step in range(1201)])
    portions = list(MetricsTail(run.metrics).after(""))
    assert [(len(one.records), one.anew) for one in portions] == [
        (500, True),
        (500, False),
        (201, False),
    ]
    again = list(MetricsTail(run.metrics).after(portions[0].position))
    assert again == portions[1:]


@pytest.mark.parametrize("name", ["no", "..%2f..", "..", "latest"])
def test_what_is_no_run_is_gone_and_no_path_leads_out(client, name):
    assert "gone" in ask(client, "run/no@")["events"][0]
    answer = client.get(f"/events/after?since=run/{name}@")
    assert answer.status_code == 400 or "gone" in answer.json()["events"][0]


@pytest.mark.parametrize(
    "since", ["runs@a b", "../x", "runs@1@2", "RUNS", ",".join(["runs@1"] * 1) + ",é"]
)
def test_malformed_positions_are_refused(client, since):
    assert client.get("/events/after", params={"since": since}).status_code == 400
    assert client.get("/events", params={"since": since}).status_code == 400


def test_positions_of_several_topics_are_one_text():
    assert parsed("runs,run/a-1@12.7") == {"runs": None, "run/a-1": "12.7"}


def test_all_who_follow_hear_of_a_change_and_the_id_leads_on(bench, run):
    topic = f"run/{run.name}"

    async def scenario():
        hub = Hub(bench, SOURCES)
        watching = asyncio.create_task(hub.watch())
        streams = [hub.follow({topic: None, "runs": None}) for _ in range(3)]
        for stream in streams:
            first = await anext(stream)
            assert first.retry == 3000
            begun = [(await anext(stream)).data for _ in range(2)]
            assert [sorted(one) for one in begun] == [["to", "topic"]] * 2
        waiting = [asyncio.create_task(anext(stream)) for stream in streams]
        while len(hub._watched) < 2 or any(one.followers < 3 for one in hub._watched.values()):
            await asyncio.sleep(0)
        run.append_metrics({"step": 2})
        events = await asyncio.gather(*waiting)
        assert [event.data["data"]["records"] for event in events] == [[{"step": 2}]] * 3
        # Another browser, with the id of the last event, has nothing to catch up on.
        run.append_metrics({"step": 3})
        later = hub.follow(parsed(events[0].id))
        await anext(later)
        event = await anext(later)
        assert event.data["data"]["records"] == [{"step": 3}]
        hub.close()
        for stream in (*streams, later):
            async for _ in stream:
                pass
        assert hub._watched == {}
        watching.cancel()

    in_a_loop(scenario())


def test_what_happens_between_the_connection_and_the_first_look_is_told(bench, run):
    async def scenario():
        hub = Hub(bench, SOURCES)
        stream = hub.follow({"runs": None})
        await anext(stream)
        # The browser has its connection, and asks where the list stands.
        asked = hub.open("runs").position()
        run.set_state("finished")
        begun = (await anext(stream)).data
        hub.close()
        return asked, begun

    asked, begun = in_a_loop(scenario())
    assert begun["topic"] == "runs" and "from" not in begun
    assert begun["to"] not in ("", asked)


def test_a_run_that_is_damaged_is_said_to_be_and_the_rest_goes_on(bench, run):
    async def scenario():
        hub = Hub(bench, SOURCES)
        with run.metrics.open("ab") as file:
            file.write(b"not JSON\n")
        stream = hub.follow({f"run/{run.name}": "", "run/no": "", "runs": ""})
        await anext(stream)
        said = [(await anext(stream)).data for _ in range(3)]
        hub.close()
        return said

    said = in_a_loop(scenario())
    assert "no run" in said[0]["gone"]
    assert "not a JSON object" in said[1]["broken"]
    assert said[2]["topic"] == "runs"
    json.dumps(said)


def test_a_page_says_where_its_topics_stood_before_it_was_written(web, client):
    """So a run that appears while the page is on its way to the browser is not missed."""
    page = client.get("/lab").text
    (at,) = re.findall(r'topic="runs" at="(\w+)"', page)
    assert client.get(f"/events/after?since=runs@{at}").json()["events"] == []
    with RunFolder.create("meanwhile", web.bench.runs):
        (event,) = client.get(f"/events/after?since=runs@{at}").json()["events"]
        assert (event["topic"], event["from"]) == ("runs", at)
    for path, topics in {"/": {"runs", "papers"}, "/models": {"models"}}.items():
        found = re.findall(r'<etude-live topic="(\w+)"[^>]* at="[^"]+"', client.get(path).text)
        assert set(found) == topics
