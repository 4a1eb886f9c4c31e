"""Judge: makes the tests of a submission, runs them in the sandbox and returns the verdict.

This is the trusted side. The sandbox receives inputs; expected answers never leave this process.
"""

from __future__ import annotations

import secrets

from etude.practice.judge.pool import Pool
from etude.practice.judge.supervisor import ExecutionResult
from etude.practice.judge.test_cases import make_cases
from etude.practice.judge.verdict import Verdict
from etude.practice.judge.verdicts import Reading
from etude.practice.problem import Problem

MOST_SOURCE = 256 << 10
FAULT_TRIES = 3


class Judge:
    """Judges submissions; safe to call from several threads, one per slot."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    @property
    def slots(self) -> int:
        """Number of submissions that run at once."""
        return self.pool.slots

    @property
    def workers(self) -> int:
        """Number of threads that may call `judge`: one more than slots, to make tests meanwhile."""
        return self.pool.slots + 1

    def judge(
        self, problem: Problem, source: str, seed: int | None = None, visible_only: bool = False
    ) -> Verdict:
        """Return the verdict on `source`.

        Args:
            problem: the problem that it solves.
            source: the submission.
            seed: of the tests' random numbers; a fresh one by default.
            visible_only: run the visible tests only, as `etude practice run` does.
        """
        seed = secrets.randbits(48) if seed is None else seed
        isolation = self.pool.level.describe()
        if len(source.encode(errors="surrogatepass")) > MOST_SOURCE:
            return Verdict(
                "compile error",
                says=f"the submission is longer than {MOST_SOURCE >> 10} KB",
                seed=seed,
                isolation=isolation,
            )
        cases = make_cases(problem, seed, visible_only)
        suite, limits = problem.suite, problem.front.limits
        request = {
            "source": source.encode(errors="replace").decode(),
            "entry": problem.entry,
            "driver": problem.driver,
            "mutable": list(suite.mutable),
            "twice": suite.deterministic,
            "seed": seed,
            "tests": [
                {"index": index, "seed": case.seed, "arguments": case.frame}
                for index, case in enumerate(cases)
            ],
        }
        outcome = ExecutionResult(ending="fault")
        for _ in range(FAULT_TRIES):
            outcome = self.pool.run(
                request, limits.seconds, limits.memory_mb << 20, limits.output_kb << 10
            )
            if outcome.ending != "fault":
                break
        return Reading(problem, cases, outcome, seed, isolation).verdict()
