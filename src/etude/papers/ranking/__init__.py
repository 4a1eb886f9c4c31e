"""Which papers a reader wants to see first, and why."""

from etude.papers.ranking.interest import Interest
from etude.papers.ranking.order import Ranked, rank

__all__ = ["Interest", "Ranked", "rank"]
