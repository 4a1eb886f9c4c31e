"""A process beside the web app that ranks papers, so that the server loads no scikit-learn.

It costs 250 MB and seconds to start, so it starts when it is first needed, and ends when it was not
for five minutes. The pages show what it computed last until it has computed anew.

    python -m etude.app.papers.ranking_process

reads the database's URL and the user's name as a JSON list, then a JSON request a line, and writes
a JSON answer to each.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etude.app.warm_process import WarmProcess, answer_requests
from etude.core.errors import PapersError

if TYPE_CHECKING:
    from etude.papers.library import Library
    from etude.papers.reader import Reader

PATIENCE = 1.5
"""Seconds that a page waits for an answer before it shows what is known."""
MOST_ANSWERS = 200


@dataclass(frozen=True)
class Answer:
    """What was computed."""

    value: Any
    """None if nothing was computed yet."""
    current: bool
    """Whether it is of the library and the feedback as they are now."""
    problem: str = ""
    """Why it could not be computed."""


class RankingProcess:
    """Asks the process, one request after the other, and keeps its answers.

    Args:
        library: whose papers are ranked.
        reader: for whom.
    """

    def __init__(self, library: Library, reader: Reader) -> None:
        self._library, self._reader = library, reader
        self._warm = WarmProcess(__name__, self._opening, retry=True)
        self._queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ranking")
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[str, Answer]] = {}
        self._asked: dict[tuple[str, str], Future[Answer]] = {}
        self.answered = 0
        """Grows with every answer, so that a page can be told of it."""

    def ask(self, what: str, patience: float = PATIENCE, **arguments: Any) -> Answer:
        """Return an answer: the current one if it comes in time, else the last, else none.

        Args:
            what: a key of `REQUESTS`.
            patience: seconds to wait.
            arguments: of the request; plain data.
        """
        request = json.dumps([what, arguments], sort_keys=True)
        state = self._state()
        with self._lock:
            known = self._answers.get(request)
            if known is not None and known[0] == state:
                return known[1]
            asked = self._asked.get((request, state))
            if asked is None:
                asked = self._queue.submit(self._answer, request, state)
                self._asked[request, state] = asked
        try:
            return asked.result(patience)
        except NotYet:
            return Answer(known[1].value if known is not None else None, current=False)

    def close(self) -> None:
        """End the process."""
        self._queue.shutdown(wait=False, cancel_futures=True)
        self._warm.close()

    def _state(self) -> str:
        """Return a text that changes with the papers and with the reader's feedback."""
        return f"{self._library.revision()} {self._reader.stamp()}"

    def _answer(self, request: str, state: str) -> Answer:
        try:
            found = json.loads(self._warm.ask(request))
            answer = Answer(found["value"], current=True, problem=found["problem"])
        except (OSError, ValueError) as error:
            answer = Answer(None, current=True, problem=f"ranking failed: {error}")
        with self._lock:
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            self._answers[request] = (state, answer)
            self._asked.pop((request, state), None)
            self.answered += 1
        return answer

    def _opening(self) -> str:
        # Not an argument: a URL may contain a password, which the process list would show.
        address = self._library.engine.url.render_as_string(hide_password=False)
        return json.dumps([address, self._reader.name]) + "\n"


# -- in the process ------------------------------------------------------------------------------


def _day(library: Library, reader: Reader, **which: Any) -> Any:
    from etude.app.papers.opening import open_settings
    from etude.app.papers.reading import papers_of_day

    found = papers_of_day(library, reader, open_settings(), **which)
    return [[paper.row["id"], paper.why] for paper in found.papers]


def _topics(library: Library, reader: Reader, **which: Any) -> Any:
    from etude.app.papers.opening import open_settings
    from etude.app.papers.reading import topics_of_day

    found = topics_of_day(library, reader, open_settings(), **which)
    return [
        [topic.name, [[paper.row["id"], paper.why] for paper in topic.papers]] for topic in found
    ]


def _why(library: Library, reader: Reader, paper: str) -> Any:
    from etude.app.papers.reading import why_ranked

    return why_ranked(library, reader, paper)


def _related(library: Library, reader: Reader, paper: str) -> Any:
    from etude.app.papers.reading import paper_details

    del reader
    return [row["id"] for row in paper_details(library, None, paper).related]


def _newest(library: Library, reader: Reader) -> Any:
    from etude.papers.feed_bodies import NEWEST, ranked_rows

    return [row["id"] for row in ranked_rows(library, reader, library.newest(most=NEWEST))]


REQUESTS: dict[str, Callable[..., Any]] = {
    "day": _day,
    "topics": _topics,
    "why": _why,
    "related": _related,
    "newest": _newest,
}
"""What can be asked; each takes the library, the reader and the request's arguments."""


def _serve() -> None:
    from etude.papers.library import Library
    from etude.papers.reader import Reader
    from etude.store.engine import open_store

    address, user = json.loads(sys.stdin.readline())
    library = Library(open_store(address))
    reader = Reader(library.engine, user)

    def answer(line: str) -> str:
        what, arguments = json.loads(line)
        try:
            return json.dumps(
                {"value": REQUESTS[what](library, reader, **arguments), "problem": ""}
            )
        except PapersError as error:
            return json.dumps({"value": None, "problem": str(error)})
        except Exception as error:  # a fault in ranking is shown, and ends nothing
            return json.dumps({"value": None, "problem": f"{type(error).__name__}: {error}"})

    answer_requests(answer)


if __name__ == "__main__":
    _serve()
