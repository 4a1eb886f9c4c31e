"""Statements of what a user did, by the rules of xAPI 1.0.3, part 2."""

from __future__ import annotations

import io
import json
import re
import zipfile
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

import pytest
from tests.app.test_today import solve
from tests.web.every_page import named
from tests.web.rooms.papers_data import installation

from etude.app.archive import delete_all, export_all, import_all
from etude.practice.problem import load_shelf
from etude.tuning.runs.folder import RunFolder

IRI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
DURATION = re.compile(r"P(?=.)(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")
KEYS = {"id", "actor", "verb", "object", "result", "context", "timestamp", "attachments"}
"""What who provides statements may set: `stored` and `authority` are the store's, and a version
other than 1.0.0 is not allowed (part 2, sections 2.4.8 to 2.4.10)."""


@pytest.fixture
def bench(tmp_path):
    with installation(tmp_path) as bench:
        problem, other = load_shelf()[:2]
        solve(bench, other, accepted=False)
        solve(bench, other)
        solve(bench, problem)
        bench.reader.like("2604.00080")
        bench.reader.dislike("2604.00001")
        bench.reader.note("2604.00080", "“worth reading”\nagain")
        with named(bench.runs, "trained-1") as run:
            run.append_metrics({"step": 1, "loss": 2.0, "eval_loss": 1.5, "seconds": 3.25})
            run.set_state("finished")
        with named(bench.runs, "broken-1") as run:
            run.set_state("failed", "the disk is full")
        yield bench


def exported(bench):
    with zipfile.ZipFile(io.BytesIO(export_all(bench.engine, "ada", bench.runs))) as packed:
        lines = packed.read("statements.jsonl").decode().split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def require_valid(statement):
    """Check one statement by the rules for those who provide them."""
    assert set(statement) <= KEYS
    assert {"id", "actor", "verb", "object"} <= set(statement)
    assert UUID(statement["id"]).variant == RFC_4122
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", statement["id"])
    require_no_null(statement)

    actor = statement["actor"]
    assert actor["objectType"] == "Agent"
    # Exactly one inverse functional identifier.
    identifiers = {"mbox", "mbox_sha1sum", "openid", "account"} & set(actor)
    assert identifiers == {"account"}
    assert set(actor) <= {"objectType", "name", "account"}
    assert set(actor["account"]) == {"homePage", "name"}
    assert re.fullmatch(r"https?://[^\s]+", actor["account"]["homePage"])
    assert isinstance(actor["account"]["name"], str) and actor["account"]["name"]

    assert set(statement["verb"]) <= {"id", "display"}
    assert IRI.fullmatch(statement["verb"]["id"])
    require_language_map(statement["verb"]["display"])

    activity = statement["object"]
    assert activity["objectType"] == "Activity"
    assert IRI.fullmatch(activity["id"])
    definition = activity["definition"]
    assert set(definition) <= {"name", "description", "type", "moreInfo", "extensions"}
    assert IRI.fullmatch(definition["type"])
    for name in ("name", "description"):
        require_language_map(definition.get(name, {}))

    result = statement.get("result", {})
    known = {"score", "success", "completion", "response", "duration", "extensions"}
    assert set(result) <= known
    assert isinstance(result.get("success", True), bool)
    assert isinstance(result.get("completion", True), bool)
    assert isinstance(result.get("response", ""), str)
    assert DURATION.fullmatch(result.get("duration", "PT0S"))
    assert all(IRI.fullmatch(key) for key in result.get("extensions", {}))
    if score := result.get("score"):
        assert set(score) <= {"scaled", "raw", "min", "max"}
        assert -1 <= score["scaled"] <= 1
        assert score["min"] <= score["raw"] <= score["max"] and score["min"] < score["max"]

    at = datetime.fromisoformat(statement["timestamp"])
    assert at.utcoffset() == timedelta(0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", statement["timestamp"])
    assert at <= datetime.now(UTC)


def require_no_null(value):
    assert value is not None
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            require_no_null(one)


def require_language_map(texts):
    assert all(LANGUAGE.fullmatch(tag) and isinstance(text, str) for tag, text in texts.items())


def test_all_that_was_done_is_said_by_the_rules_and_in_the_order_of_time(bench):
    found = exported(bench)
    for statement in found:
        require_valid(statement)
    assert len({statement["id"] for statement in found}) == len(found)
    times = [statement["timestamp"] for statement in found]
    assert times == sorted(times)
    problem, other = load_shelf()[:2]
    said = [(one["verb"]["display"]["en"], one["object"]["definition"]["name"]["en"])
            for one in found]  # fmt: skip
    assert sorted(said) == sorted(
        [
            ("attempted", other.title),
            ("passed", other.title),
            ("passed", problem.title),
            ("liked", 'Title <img src=x onerror="window.hacked=1">'),
            ("disliked", "Diffusion of images in few steps, part 1"),
            ("commented", 'Title <img src=x onerror="window.hacked=1">'),
            ("completed", "trained-1"),
        ]
    )


def test_what_is_said_is_what_was_recorded(bench):
    by_verb = {one["verb"]["display"]["en"]: one for one in exported(bench)}
    assert by_verb["attempted"]["result"]["success"] is False
    assert by_verb["passed"]["result"]["success"] is True
    assert by_verb["liked"]["object"]["id"] == "https://arxiv.org/abs/2604.00080"
    assert by_verb["commented"]["result"]["response"] == "“worth reading”\nagain"
    run = by_verb["completed"]
    assert run["result"]["duration"] == "PT3.25S"
    (loss,) = run["result"]["extensions"].values()
    assert loss == 1.5
    assert run["actor"]["account"]["name"] == "ada"
    recorded = datetime.fromisoformat(RunFolder(bench.runs / "trained-1").state_record()["updated"])
    assert datetime.fromisoformat(run["timestamp"]) == recorded


def test_exporting_again_also_after_an_import_gives_the_same_statements(bench):
    before = exported(bench)
    assert exported(bench) == before
    archive = export_all(bench.engine, "ada")
    delete_all(bench.engine, "ada")
    assert [one["verb"]["display"]["en"] for one in exported(bench)] == ["completed"]
    import_all(bench.engine, "ada", io.BytesIO(archive))
    assert exported(bench) == before


def test_a_run_of_the_same_name_is_another_activity(bench):
    (first,) = (one for one in exported(bench) if one["verb"]["display"]["en"] == "completed")
    run = RunFolder(bench.runs / "trained-1")
    state = {**run.state_record(), "began": "2026-01-01T00:00:00+00:00"}
    (run.path / "state.json").write_text(json.dumps(state))
    (second,) = (one for one in exported(bench) if one["verb"]["display"]["en"] == "completed")
    assert first["id"] != second["id"] and first["object"]["id"] != second["object"]["id"]
