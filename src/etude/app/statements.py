"""What a user has done as statements of xAPI 1.0.3, for programs that collect learning records.

A statement says who did what to what, and when: `ada passed Create TensorDataset`. They are made
from the records that are exported, and from the runs that have finished, in the order of time.
Their ids are functions of those records, so a store that receives an export twice keeps one of
each. Nothing is sent anywhere.

The rules are those of the specification's part 2, "Experience Data"; verbs are ADL's and those of
Activity Streams, which other programs know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from etude.app.runs import RunFacts

HOME = "https://github.com/etude-ml/etude"
"""What accounts and problems are named by: an address of this project, as xAPI asks for one."""
_NAMESPACE = UUID("6f0a3cf4-3a8e-5d0b-9c0e-6c1b7f2d9a41")
_VERBS = {
    "attempted": "http://adlnet.gov/expapi/verbs/attempted",
    "passed": "http://adlnet.gov/expapi/verbs/passed",
    "completed": "http://adlnet.gov/expapi/verbs/completed",
    "commented": "http://adlnet.gov/expapi/verbs/commented",
    "liked": "http://activitystrea.ms/schema/1.0/like",
    "disliked": "http://activitystrea.ms/schema/1.0/dislike",
}
_PROBLEM = "http://adlnet.gov/expapi/activities/question"
_PAPER = "http://activitystrea.ms/schema/1.0/article"
_RUN = "http://activitystrea.ms/schema/1.0/process"


def statements(
    user: str,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    problems: Mapping[str, str],
    papers: Mapping[str, str],
    runs: Iterable[RunFacts] = (),
) -> list[dict[str, Any]]:
    """Return all statements of a user, the oldest first.

    Args:
        user: whose records they are.
        tables: of an export, by name.
        problems: titles, by slug.
        papers: titles, by arXiv id.
        runs: those that have finished are said to be completed.
    """
    found = [
        *_submissions(tables["practice_submissions"], problems),
        *_papers(user, tables, papers),
        *_runs(user, runs),
    ]
    actor = {"objectType": "Agent", "name": user, "account": {"homePage": HOME, "name": user}}
    made = [
        {
            "id": str(uuid5(_NAMESPACE, seed)),
            "actor": actor,
            "verb": {"id": _VERBS[verb], "display": {"en": verb}},
            "object": activity,
            **({"result": result} if result else {}),
            "timestamp": _written(at),
        }
        for at, seed, verb, activity, result in found
    ]
    return sorted(made, key=lambda one: (one["timestamp"], one["id"]))


def as_lines(found: Iterable[Mapping[str, Any]]) -> str:
    """Return statements as JSON, one a line."""
    return "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in found)


_Made = tuple[datetime, str, str, dict[str, Any], dict[str, Any]]
"""Time, what the id is made of, verb, object and result."""


def _submissions(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Iterator[_Made]:
    from etude.practice.judge.verdict import Verdict

    for row in rows:
        verdict = Verdict.from_dict(row["verdict"])
        # Neither a look at the visible tests is an attempt, nor one that the judge failed.
        if row["visible_only"] or verdict.kind == "system fault":
            continue
        result: dict[str, Any] = {
            "success": verdict.accepted,
            "completion": True,
            "duration": _duration(verdict.seconds),
            "response": verdict.kind,
        }
        if verdict.total:
            result["score"] = {
                "scaled": verdict.passed / verdict.total,
                "raw": verdict.passed,
                "min": 0,
                "max": verdict.total,
            }
        slug = row["slug"]
        activity = _activity(f"{HOME}#problem-{slug}", _PROBLEM, titles.get(slug, slug))
        verb = "passed" if verdict.accepted else "attempted"
        yield _moment(row["created"]), f"submission {row['key']}", verb, activity, result


def _papers(
    user: str, tables: Mapping[str, Sequence[Mapping[str, Any]]], titles: Mapping[str, str]
) -> Iterator[_Made]:
    def activity(key: str) -> dict[str, Any]:
        return _activity(f"https://arxiv.org/abs/{key}", _PAPER, titles.get(key, key))

    for row in tables["papers_opinions"]:
        verb = "liked" if row["value"] > 0 else "disliked"
        seed = f"{user} {verb} {row['id']} {row['at']!r}"
        yield _moment(row["at"]), seed, verb, activity(row["id"]), {}
    for row in tables["papers_notes"]:
        seed = f"{user} commented {row['id']} {row['at']!r}"
        result = {"response": row["text"]}
        yield _moment(row["at"]), seed, "commented", activity(row["id"]), result


def _runs(user: str, runs: Iterable[RunFacts]) -> Iterator[_Made]:
    for run in runs:
        if run.state != "finished" or run.damaged or not isinstance(run.updated, str):
            continue
        try:
            ended = datetime.fromisoformat(run.updated)
        except ValueError:
            continue
        if ended.tzinfo is None:
            continue
        # A name is used again after a run was deleted, and by others: the id holds when it began.
        seed = f"{user} run {run.name} {run.began}"
        named = [run.figures.get("method"), run.figures.get("model")]
        words = " of ".join(str(one) for one in named if one)
        activity = _activity(uuid5(_NAMESPACE, f"activity {seed}").urn, _RUN, run.name, words)
        result: dict[str, Any] = {"success": True, "completion": True}
        if run.seconds is not None and math.isfinite(run.seconds) and run.seconds >= 0:
            result["duration"] = _duration(run.seconds)
        loss = run.figures.get("eval_loss")
        if isinstance(loss, int | float) and math.isfinite(loss):
            result["extensions"] = {f"{HOME}#evaluation-loss": loss}
        yield ended, f"{seed} completed", "completed", activity, result


def _activity(key: str, kind: str, name: str, description: str = "") -> dict[str, Any]:
    definition: dict[str, Any] = {"type": kind, "name": {"en": name}}
    if description:
        definition["description"] = {"en": description}
    return {"objectType": "Activity", "id": key, "definition": definition}


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _written(at: datetime) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _duration(seconds: float) -> str:
    """Return a length of time as ISO 8601, to the hundredth of a second that xAPI compares."""
    return f"PT{max(0.0, seconds):.2f}S"
