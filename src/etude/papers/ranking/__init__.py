"""Ranking of papers by a user's interest, with explanations, and alerts of new papers."""

from etude.papers.ranking.alerts import Alert, alerts, waiting
from etude.papers.ranking.interest import Interest
from etude.papers.ranking.order import Ranked, rank

__all__ = ["Alert", "Interest", "Ranked", "alerts", "rank", "waiting"]
