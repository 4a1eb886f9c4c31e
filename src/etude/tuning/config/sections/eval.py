"""`eval`: evaluation before, during and after training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from etude.tuning.config.sections.base import Section


class EvalSpec(Section):
    """Evaluation before, during and after training."""

    generate: Annotated[int, Field(ge=0)] = 64
    """Number of evaluation samples for which an answer is generated and scored by ROUGE-L."""

    best_metric: str = "loss"
    """Metric that selects the best evaluation during training and that `train.patience` monitors:
    `loss`, or a metric of the task (`accuracy`, `macro_f1`, `entity_f1`)."""

    tag_decoding: Literal["viterbi", "argmax"] = "viterbi"
    """How tags are decoded, in evaluation and prediction (`token-classification`). `viterbi`: the
    most probable sequence that the scheme allows. `argmax`: the most probable tag of each word."""

    show: Annotated[int, Field(ge=0)] = 3
    """Number of samples printed after training."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """Maximum length of a generated answer, in tokens."""

    batch_samples: Annotated[int, Field(ge=1)] = 16
    """Answers generated per batch."""
