"""Ranking of papers by a user's interest, with explanations, and alerts of new papers.

`alerts.alerts` has the name of its module, and is imported from there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.papers.ranking.alerts import Alert, waiting
    from etude.papers.ranking.interest import Interest
    from etude.papers.ranking.order import Ranked, rank

_HOME = {
    "Alert": "alerts",
    "Interest": "interest",
    "Ranked": "order",
    "rank": "order",
    "waiting": "alerts",
}

__all__ = ["Alert", "Interest", "Ranked", "rank", "waiting"]


def __getattr__(name: str) -> Any:
    # Imported lazily: alerts and the order without likes need no NumPy.
    if name in _HOME:
        return getattr(import_module(f"etude.papers.ranking.{_HOME[name]}"), name)
    raise AttributeError(name)
