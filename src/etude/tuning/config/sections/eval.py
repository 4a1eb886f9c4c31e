"""`eval`: what is measured before and after training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from etude.tuning.config.sections.base import Section


class EvalSpec(Section):
    """What is measured before and after training."""

    generate: Annotated[int, Field(ge=0)] = 64
    """Evaluation samples for which an answer is generated and scored by ROUGE-L."""

    best_metric: str = "loss"
    """Metric by which the best evaluation in the course of training is chosen, and which
    `train.patience` waits for: `loss`, or one that the task evaluates (`accuracy`, `macro_f1`)."""

    show: Annotated[int, Field(ge=0)] = 3
    """Samples printed before and after."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """Longest generated answer."""

    batch_samples: Annotated[int, Field(ge=1)] = 16
    """Answers generated at a time."""
