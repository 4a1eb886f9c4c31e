"""Settings of a search: the section `search` of a space."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from etude.core.errors import RecipeError, did_you_mean
from etude.tuning.config.sections.base import Section

Cost = Literal["saved_bytes", "peak_rss", "train_seconds"]
"""What quality may be searched against: a figure of summary.json, the lower the better."""

COSTS: dict[str, str] = {
    "saved_bytes": "size on disk",
    "peak_rss": "peak memory",
    "train_seconds": "training time",
}
"""Titles of the costs."""

Sampler = Literal["random", "tpe", "gp"]

MOST_HALVED = 100
"""The shortest trial is at least this part of a training."""


class SearchSettings(Section):
    """How a space is searched; options of the command line come before it."""

    metric: str | None = None
    """The metric to improve, by its name in summary.json. None: that of the task (accuracy, entity
    F1, ...), or the loss."""

    against: tuple[Cost, ...] = ()
    """Costs to lower at the same time: the result is a Pareto front. Without halving."""

    sampler: Sampler = "tpe"
    """`random`: independent draws. `tpe`: tree-structured Parzen estimator (Bergstra et al. 2011),
    joint over all keys. `gp`: Gaussian process."""

    halving: bool | None = None
    """Successive halving (Jamieson and Talwalkar 2016). None: with one objective, and not with a
    Gaussian process."""

    eta: Annotated[int, Field(ge=2, le=10)] = 3
    """Of the trials of a bracket that reach a rung, one in `eta` goes on."""

    rungs: Annotated[int, Field(ge=1, le=5)] = 3
    """Lengths that trials are compared at: 1/eta^(rungs-1), ..., 1/eta and all of the training."""

    trials: Annotated[int, Field(ge=1)] = 20
    """Trials to begin, the default recipe included; those that cannot be run do not count."""

    minutes: Annotated[float, Field(gt=0)] | None = None
    """No trial is begun or resumed after so many minutes. None: no limit."""

    seed: int = 0
    """Seed of the sampler. Trials have the recipe's `train.seed`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.halving and self.against:
            raise ValueError(
                "search.halving compares by one objective; omit search.against, or set "
                "search.halving: false"
            )
        if self.halving and self.sampler == "gp":
            raise ValueError(
                "search.sampler gp learns from trials that are trained in full; omit "
                "search.halving, or set search.sampler: tpe"
            )
        if len(set(self.against)) < len(self.against):
            raise ValueError("search.against names a cost twice")
        if self.eta ** (self.rungs - 1) > MOST_HALVED:
            raise ValueError(
                f"search.eta {self.eta} with search.rungs {self.rungs} compares trials after "
                f"1/{self.eta ** (self.rungs - 1)} of their training; at most 1/{MOST_HALVED}"
            )
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the training at which trials are compared, ending with 1."""
        alone = not self.against and self.sampler != "gp"
        halved = alone if self.halving is None else self.halving
        if not halved:
            return (1.0,)
        return tuple(self.eta**-rung for rung in reversed(range(self.rungs)))

    @property
    def bracket(self) -> int:
        """Trials that are halved together, so that one of them is trained in full."""
        return self.eta ** (len(self.shares) - 1)

    @classmethod
    def parse(cls, fields: Any, origin: str) -> SearchSettings:
        """Validate plain data.

        Raises:
            RecipeError: an unknown key, or an invalid value.
        """
        try:
            return cls.model_validate({} if fields is None else fields)
        except ValidationError as error:
            raise RecipeError(f"{origin}: {'; '.join(_messages(error))}") from None


def _messages(error: ValidationError) -> list[str]:
    found: list[str] = []
    for fault in error.errors():
        key = ".".join(["search", *map(str, fault["loc"])])
        if fault["type"] == "extra_forbidden":
            known = SearchSettings.model_fields
            near = did_you_mean(str(fault["loc"][-1]), known)
            listed = f" (known: {', '.join(known)})"
            found.append(f"unknown key {key!r}{near or listed}")
        elif fault["type"] == "value_error":
            found.append(fault["msg"].removeprefix("Value error, "))
        else:
            found.append(
                f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"
            )
    return found
