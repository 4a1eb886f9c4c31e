"""A server on this machine that speaks arXiv's three interfaces, for tests and demonstrations.

It shows a world of papers as of its own clock, with the quirks of the real servers and with faults
on command. `python -m etude.papers.fake_arxiv --help` starts one; `ReplayServer` is one within a
test.
"""

from etude.papers.fake_arxiv.faults import Fault
from etude.papers.fake_arxiv.server import ReplayServer
from etude.papers.fake_arxiv.world import World, generated, recorded

__all__ = ["Fault", "ReplayServer", "World", "generated", "recorded"]
