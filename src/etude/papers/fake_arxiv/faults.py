"""Fault injection: which response fails, how, and how often."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from etude.core.errors import PapersError, did_you_mean

KINDS = {
    "429": "too many requests; =N sends Retry-After with N seconds, =date with a date",
    "403": "access denied",
    "500": "internal server error",
    "503": "not available; =N sends Retry-After",
    "truncate": "XML that is truncated, with a matching Content-Length",
    "cut": "a connection that closes before the announced length",
    "reset": "a connection that is reset before any answer",
    "slow": "a body sent in small pieces; =N seconds between them",
    "error": "an error in the interface's own form: HTTP 400 for feeds and query, 200 for OAI-PMH",
    "error200": "the query API's error under HTTP 200, as in earlier years",
    "stale": "feeds show the previous batch under today's date; =CATEGORY in that one only",
    "lag": "feeds are dated a day earlier",
    "empty": "no items: an empty feed, or an empty page after the first",
    "shuffle": "the query API's order is ignored",
    "total": "the query API returns a wrong total; =N is the count",
    "missing": "the query API omits every other id of id_list",
    "expired": "OAI-PMH rejects its resumption token",
    "twice": "OAI-PMH sends the first record twice",
    "html": "an HTML page instead of the response",
}
_FORM = re.compile(r"^(rss|oai|query|any):([a-z0-9]+?)(?:=([\w.-]+?))?(?:x(\d+|\*))?$")


@dataclass(slots=True)
class Fault:
    """One injected fault.

    Written ``WHERE:KIND[=VALUE][xTIMES]``, for example ``oai:429=7x3`` or ``rss:stalex*``.
    """

    where: str
    """`rss`, `oai`, `query` or `any`."""
    kind: str
    value: str = ""
    times: int | None = 1
    """Number of times; None for ever."""

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Parse a fault.

        Raises:
            PapersError: it is malformed, or of unknown kind.
        """
        match = _FORM.match(text.strip())
        if match is None:
            raise PapersError(f"{text!r} is not a fault; write WHERE:KIND[=VALUE][xTIMES]")
        if match[2] not in KINDS:
            raise PapersError(f"unknown fault {match[2]!r}{did_you_mean(match[2], KINDS)}")
        times = None if match[4] == "*" else int(match[4] or 1)
        return cls(match[1], match[2], match[3] or "", times)


class Faults:
    """Queue of pending faults; thread-safe."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._waiting = list(faults)

    def add(self, *faults: Fault) -> None:
        """Append faults."""
        with self._lock:
            self._waiting.extend(faults)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._waiting.clear()

    def take(self, where: str, *, allowed: Iterable[str]) -> Fault | None:
        """Take the next fault of an interface, of the kinds `allowed`."""
        kinds = set(allowed)
        with self._lock:
            for fault in self._waiting:
                if fault.where in {where, "any"} and fault.kind in kinds:
                    return self._use(fault)
        return None

    def standing(self, where: str, kind: str, of: str = "") -> Fault | None:
        """Take a fault of a response's content; `of` is the requested category."""
        with self._lock:
            for fault in self._waiting:
                if fault.where in {where, "any"} and fault.kind == kind:
                    if of and fault.value and fault.value.lower() != of.lower():
                        continue
                    return self._use(fault)
        return None

    def _use(self, fault: Fault) -> Fault:
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self._waiting.remove(fault)
        return fault
