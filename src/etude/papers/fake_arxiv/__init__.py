"""Fake arXiv server: the three interfaces on this machine, for tests and demonstrations.

It serves a set of papers as of its own clock, with the quirks of the real servers and faults
on command. Start it with `python -m etude.papers.fake_arxiv`, or use `ReplayServer` within a
test.
"""

from etude.papers.fake_arxiv.faults import Fault
from etude.papers.fake_arxiv.server import ReplayServer
from etude.papers.fake_arxiv.world import World, generated, recorded

__all__ = ["Fault", "ReplayServer", "World", "generated", "recorded"]
