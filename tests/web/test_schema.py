"""No input makes a page fail: requests made from the app's own schema, sent with a session."""

from __future__ import annotations

import re

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.web.conftest import PORT

OWN = f"http://127.0.0.1:{PORT}"
STARTS = {
    "/events",  # it does not end
    # What is right starts a process, which the tests of each room do.
    "/practise/{slug}/run",
    "/practise/{slug}/submit",
    "/practise/{slug}/explain",
    "/papers/sync",
    "/papers/import",
    "/lab/new",
    "/lab/runs/{name}/resume",
    "/models/pull",
}
KNOWN = {
    "slug": ["create-tensordataset"],
    "key": ["2403.00001"],
    "name": ["llm", "finished-1"],
}
EXAMPLES = 12


@pytest.fixture(autouse=True)
def without_processes(monkeypatch):
    monkeypatch.setattr("etude.practice.judge_process.JudgeProcess.want", lambda *_, **__: None)


@pytest.mark.integration
def test_no_request_that_the_schema_allows_or_forbids_fails_a_page(web, client):
    (cookie,) = client.cookies.values()
    csrf = web.sessions.read(cookie).csrf
    schema = schemathesis.openapi.from_dict(web.app.inner.openapi())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 50
    failed: set[str] = set()
    for operation in operations:
        if operation.path in STARTS:
            continue
        modes = [schemathesis.GenerationMode.POSITIVE]
        if operation.body or operation.query:
            modes.append(schemathesis.GenerationMode.NEGATIVE)
        for mode in modes:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
            def send(case, known):
                path = case.formatted_path
                if known:  # otherwise most paths name nothing
                    path = re.sub(
                        r"{(\w+)}",
                        lambda found: KNOWN.get(found[1], ["x"])[0],
                        case.operation.path,
                    )
                if len(str(case.query)) > 10_000:
                    return  # longer than a server reads
                body = case.body if isinstance(case.body, dict) else {}
                answer = client.request(
                    case.method,
                    path,
                    params=case.query if isinstance(case.query, dict) else None,
                    data={key: _text(value) for key, value in body.items()} or None,
                    headers={"Origin": OWN, "X-CSRF-Token": csrf},
                )
                if answer.status_code >= 500:
                    failed.add(f"{case.method} {path} {case.query} {body} {answer.status_code}")

            try:
                send()
            except schemathesis.errors.SchemathesisError:
                continue  # nothing can be made that this operation forbids
    assert failed == set()


def _text(value):
    return value if isinstance(value, str) else str(value)
