"""Store of language models' explanations and their ratings.

Each explanation is stored as it was shown. A user rates the last one; the totals per model show
which model is useful.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from etude.core.errors import ProblemError
from etude.practice.tutor import Explanation
from etude.store.practice import Explained


@dataclass(frozen=True)
class ModelRecord:
    """Ratings of one model's explanations."""

    model: str
    said: int
    helped: int
    did_not: int
    withheld: int
    """Number truncated or withheld by the guard."""


@dataclass(frozen=True)
class Kept:
    """An explanation that was shown."""

    number: int
    model: str
    text: str
    withheld: str
    """Why the rest was withheld; empty if nothing was."""
    helped: bool | None


class Explanations:
    """Explanations shown to one user.

    Args:
        engine: from `store.engine.open_store`.
        user: name of the user.
        clock: seconds since 1970.
    """

    def __init__(self, engine: Engine, user: str, clock: Callable[[], float] = time.time) -> None:
        self.engine, self.user, self.clock = engine, user, clock

    def add(self, slug: str, explanation: Explanation, submission: str = "") -> int:
        """Store an explanation as shown; return its number.

        Args:
            slug: the problem.
            explanation: as it was shown.
            submission: key of the submission that it explains; empty if that was not recorded.
        """
        row = Explained(
            user=self.user,
            slug=slug,
            model=explanation.model[:120],
            text=explanation.text,
            withheld=explanation.withheld,
            at=self.clock(),
            helped=None,
            submission=submission or None,
        )
        with Session(self.engine) as session, session.begin():
            session.add(row)
            session.flush()
            return row.number

    def of_submission(self, key: str) -> Kept | None:
        """Return the last explanation of a submission; None if there is none."""
        wanted = (
            select(Explained)
            .where(Explained.user == self.user, Explained.submission == key)
            .order_by(Explained.number.desc())
            .limit(1)
        )
        with Session(self.engine) as session:
            row = session.scalar(wanted)
            return row and Kept(row.number, row.model, row.text, row.withheld, row.helped)

    def rate(self, helped: bool, number: int | None = None) -> tuple[int, str, str]:
        """Rate an explanation, the last one unless a number is given.

        A second rating replaces the first. Returns its number, problem and model.

        Raises:
            ProblemError: the user has no explanation, or none with that number.
        """
        own = select(Explained).where(Explained.user == self.user)
        own = own if number is None else own.where(Explained.number == number)
        with Session(self.engine) as session, session.begin():
            row = session.scalar(own.order_by(Explained.number.desc()).limit(1))
            if row is None:
                which = "no explanation" if number is None else f"no explanation {number}"
                raise ProblemError(
                    f"there is {which} to rate; `etude practice explain SLUG` asks a model for one"
                )
            session.execute(
                update(Explained).where(Explained.number == row.number).values(helped=helped)
            )
            return row.number, row.slug, row.model

    def by_model(self) -> list[ModelRecord]:
        """Return the totals of each model over all users, most used first."""
        wanted = (
            select(
                Explained.model,
                func.count(),
                func.count().filter(Explained.helped.is_(True)),
                func.count().filter(Explained.helped.is_(False)),
                func.count().filter(Explained.withheld != ""),
            )
            .group_by(Explained.model)
            .order_by(func.count().desc(), Explained.model)
        )
        with Session(self.engine) as session:
            return [ModelRecord(*row.tuple()) for row in session.execute(wanted)]
