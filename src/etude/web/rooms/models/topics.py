"""The topic of the models: a step says only that something has changed."""

from __future__ import annotations

from collections.abc import Sequence

from etude.app.model_work import work_stamp
from etude.app.workbench import Workbench
from etude.web.events import Step


class ModelsTopic:
    """What is on this machine, and what is being pulled or quantised."""

    def position(self) -> str:
        """Return a text that changes with either."""
        return work_stamp()

    def after(self, position: str) -> Sequence[Step]:
        """Return one step if anything has changed."""
        now = self.position()
        return [] if now == position else [Step(now, None)]


def open_models(bench: Workbench, which: str) -> ModelsTopic:
    """Return the topic `models`."""
    del bench, which
    return ModelsTopic()
