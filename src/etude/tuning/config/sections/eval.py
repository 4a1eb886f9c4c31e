"""`eval`: evaluation before, during and after training."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.tuning.config.sections.base import Section


class EvalSpec(Section):
    """Evaluation before, during and after training."""

    generate: Annotated[int, Field(ge=0)] = 64
    """Number of different evaluation prompts for which an answer is generated and scored. Rows with
    the same prompt are one, with several references. `language-modeling`: number of held-out
    documents, at most 8, whose beginning is continued."""

    metrics: (
        list[Literal["rouge1", "rouge2", "rougeL", "bleu", "chrf", "exact_match", "slots"]] | None
    ) = None
    """Metrics of generated answers (`chat`); null: `rougeL`. `exact_match` compares whole answers,
    or what `answer_pattern` captures; `slots` is the share of the values in `eval.slots` that the
    answer contains word for word."""

    answer_pattern: str | None = None
    """Regular expression whose last match is the answer that `exact_match` compares, its group if
    there is one: `'####\\s*(.+)'` for GSM8K. Null: the whole text."""

    slots: str | None = None
    """Column of the slots that a text must realise: an object {name: value}, or text such as
    `name : Alimentum | area : city centre` or `name[Alimentum], area[city centre]`."""

    source: str | None = None
    """Column of the text to summarise, a text or a list of sentences, for `eval.baselines`."""

    baselines: list[Literal["lead1", "oracle"]] = []
    """Extractive baselines that the same metrics score (`chat`): `lead1`, the first sentence of
    `eval.source`, and `oracle`, the sentences of it nearest to the references."""

    turns: Literal["last", "all"] = "last"
    """Answers of a conversation to generate (`chat`): the last one, or each, after the turns before
    it as the data have them."""

    stride: Annotated[int, Field(ge=1)] | None = None
    """Tokens that each window of `data.max_length` tokens scores when documents are measured
    (`language-modeling`); the rest is context. Fewer is slower and gives every token more context.
    Null: windows without overlap."""

    general: str | None = None
    """Text outside the domain (`language-modeling`), a file or folder as `data.train`: what the
    model loses there is reported beside what it gains inside. Null: not measured."""

    best_metric: str = "loss"
    """Metric that selects the best evaluation during training and that `train.patience` monitors:
    `loss`, or a metric of the task (`accuracy`, `macro_f1`, `entity_f1`)."""

    tag_decoding: Literal["viterbi", "argmax"] = "viterbi"
    """How tags are decoded, in evaluation and prediction (`token-classification`). `viterbi`: the
    most probable sequence that the scheme allows. `argmax`: the most probable tag of each word."""

    thresholds: Literal["per_label", "shared", "half"] = "per_label"
    """Probability above which a label is predicted, where a row may have several: the threshold of
    the best F1 on the evaluation samples, `per_label` or `shared` by all; or one half."""

    show: Annotated[int, Field(ge=0)] = 3
    """Number of samples printed after training."""

    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Maximum length of a generated answer, in tokens. Null: as 99 of 100 training answers, end
    token included; `language-modeling`: 64."""

    batch_samples: Annotated[int, Field(ge=1)] = 16
    """Answers generated per batch."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.answer_pattern is not None:
            try:
                groups = re.compile(self.answer_pattern).groups
            except re.error as error:
                raise ValueError(
                    f"eval.answer_pattern {self.answer_pattern!r} is not a regular expression: "
                    f"{error}"
                ) from None
            if groups > 1:
                raise ValueError(
                    f"eval.answer_pattern {self.answer_pattern!r} has {groups} groups; it may have "
                    "one, around the answer; write (?:...) for the others"
                )
        if self.metrics is not None and "slots" in self.metrics and self.slots is None:
            raise ValueError("eval.metrics: slots needs eval.slots, the column of the slots")
        if self.baselines and self.source is None:
            raise ValueError(
                "eval.baselines needs eval.source, the column of the text to summarise"
            )
        return self
