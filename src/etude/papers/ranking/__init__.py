"""Which papers a reader wants to see first, and why; and what is new of what a reader follows."""

from etude.papers.ranking.alerts import Alert, alerts, waiting
from etude.papers.ranking.interest import Interest
from etude.papers.ranking.order import Ranked, rank

__all__ = ["Alert", "Interest", "Ranked", "alerts", "rank", "waiting"]
