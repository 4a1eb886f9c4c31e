"""Explanations by a language model that grow while a page shows them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.core.errors import ChatError, EtudeError, ProblemError

if TYPE_CHECKING:
    from etude.app.attempts import Attempt
    from etude.core.chat_client import ChatEndpoint
    from etude.practice.explanations import Explanations, Kept
    from etude.practice.problem import Problem
    from etude.practice.progress import UserProgress

MOST_AT_ONCE = 4


@dataclass(frozen=True)
class Growing:
    """An explanation that is being written, or could not be."""

    model: str
    text: str = ""
    failure: str = ""
    """Why there is none; empty while it is written."""


class Explainer:
    """Asks the model of the environment, in threads; what is finished is stored.

    Args:
        progress: the user's.
    """

    def __init__(self, progress: UserProgress) -> None:
        self._progress = progress
        self._growing: dict[str, Growing] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    @staticmethod
    def endpoint() -> ChatEndpoint | None:
        """Return the model that explains; None if none is set, or it cannot be used."""
        from etude.core.chat_client import ChatEndpoint

        try:
            return ChatEndpoint.from_environment()
        except ChatError:
            return None

    def start(self, problem: Problem, attempt: Attempt, question: str = "") -> None:
        """Begin to explain an attempt that failed, unless that is going on.

        Raises:
            ProblemError: no model is set, the attempt did not fail, or too many are explained now.
        """
        from etude.app.attempts import diagnose_attempt
        from etude.app.practice import Judged

        endpoint = self.endpoint()
        if endpoint is None:
            raise ProblemError("no model is set: ETUDE_LLM_URL and ETUDE_LLM_MODEL name one")
        diagnosis = diagnose_attempt(problem, attempt)
        assert attempt.verdict is not None
        judged = Judged(problem, attempt.verdict, diagnosis, attempt.key)
        with self._lock:
            busy = [key for key, one in self._growing.items() if not one.failure]
            if attempt.key in busy:
                return
            if len(busy) >= MOST_AT_ONCE:
                raise ProblemError("other explanations are being written: wait for one to end")
            self._growing[attempt.key] = Growing(endpoint.model)
        arguments = (endpoint, attempt.source, judged, [question] if question else [])
        thread = threading.Thread(target=self._write, args=arguments, daemon=True)
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()

    def threads(self) -> list[threading.Thread]:
        """Return the threads that may still write."""
        return list(self._threads)

    def of(self, key: str) -> Growing | None:
        """Return the explanation that is being written, or has failed."""
        return self._growing.get(key)

    def kept(self, key: str) -> Kept | None:
        """Return the last explanation of an attempt that is finished."""
        return self._explanations().of_submission(key)

    def rate(self, helped: bool, number: int) -> None:
        """Keep whether an explanation helped.

        Raises:
            ProblemError: the user has none with that number.
        """
        self._explanations().rate(helped, number)

    def position(self, key: str) -> str:
        """Return a short text that changes whenever the explanation does."""
        growing = self.of(key)
        if growing is not None:
            return f"{'failed' if growing.failure else 'writing'}.{len(growing.text)}"
        kept = self.kept(key)
        return f"kept.{kept.number}" if kept else "none"

    def _explanations(self) -> Explanations:
        from etude.practice.explanations import Explanations

        return Explanations(self._progress.engine, self._progress.user)

    def _write(
        self, endpoint: ChatEndpoint, source: str, judged: object, questions: list[str]
    ) -> None:
        from etude.app.practice import Judged, explain_failure

        assert isinstance(judged, Judged)
        key = judged.key
        try:
            for explanation in explain_failure(
                endpoint, source, judged, questions, explanations=self._explanations()
            ):
                self._growing[key] = Growing(endpoint.model, explanation.text)
            self._growing.pop(key)
        except (EtudeError, OSError) as error:
            self._growing[key] = Growing(endpoint.model, failure=str(error))
        except Exception as error:
            self._growing[key] = Growing(endpoint.model, failure=type(error).__name__)
            raise
