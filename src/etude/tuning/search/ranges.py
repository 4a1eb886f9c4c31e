"""Ranges: what may stand in a recipe in place of a value.

    lr: {low: 1e-5, high: 1e-3, log: true}      a number between two, both included
    rank: {choices: [4, 8, 16]}                 one of a list
    dropout: {low: 0, high: 0.2, when: {adapter.kind: [lora, dora]}}

`log`: evenly over the logarithm. `step`: multiples of it above `low`. `default`: the value of trial
0. `when`: only where other keys have one of the values named; elsewhere the key is left out, so
that it has the recipe's own default. Whole numbers are drawn where the key takes whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from etude.core.errors import RecipeError, did_you_mean
from etude.tuning.config.reference import as_yaml

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

WORDS = ("low", "high", "log", "step", "choices", "default", "when")

Value = float | int | str | bool | None
"""What stands for a value in the journal: a number, or the text of a choice."""


@dataclass(frozen=True)
class Range:
    """The values that one key of a recipe may have."""

    key: str
    """Dotted: `train.lr`."""
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    whole: bool = False
    """Whether the key takes whole numbers."""
    choices: tuple[Any, ...] = ()
    """Values to choose from; empty for a range of numbers."""
    default: Any = None
    """Value of trial 0."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, "tuple[Any, ...]"])
    """Values of other keys of which each must hold for this key to be searched."""

    @property
    def text(self) -> str:
        """The range as people read it: `1e-05 to 0.001, log`."""
        if self.choices:
            said = ", ".join(map(as_yaml, self.choices))
        else:
            said = f"{self.low:g} to {self.high:g}" + (", log" if self.log else "")
            said += f", in steps of {self.step:g}" if self.step else ""
        if self.when:
            conditions = (f"{key} is {_or(values)}" for key, values in self.when.items())
            said += f"; where {' and '.join(conditions)}"
        return said

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the key is searched where the others have these values, by dotted key."""
        return all(values.get(key) in allowed for key, allowed in self.when.items())

    def suggest(self, trial: Trial) -> Any:
        """Return the value that the sampler gives a trial."""
        if self.choices:
            # Optuna stores scalars only; a list of modules is one of several texts.
            names = {as_yaml(one): one for one in self.choices}
            return names[trial.suggest_categorical(self.key, list(names))]
        assert self.low is not None
        assert self.high is not None
        if self.whole:
            low, high = int(self.low), int(self.high)
            return trial.suggest_int(self.key, low, high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def distribution(self) -> BaseDistribution:
        """Return what `suggest` draws from."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices:
            return CategoricalDistribution([as_yaml(one) for one in self.choices])
        assert self.low is not None
        assert self.high is not None
        if self.whole:
            low, high = int(self.low), int(self.high)
            return IntDistribution(low, high, log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def stored(self, value: Any) -> Value:
        """Return what the journal holds for a recipe's value."""
        return as_yaml(value) if self.choices else cast("Value", value)

    def contains(self, value: Any) -> bool:
        """Whether the recipe's value is in the range."""
        if self.choices:
            return value in self.choices
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and self.low is not None
            and self.high is not None
            and self.low <= value <= self.high
        )

    def middle(self) -> Any:
        """Return a value in the middle, geometric on a logarithmic scale; of choices, the first."""
        if self.choices:
            return self.choices[0]
        assert self.low is not None
        assert self.high is not None
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        if self.step:
            middle = self.low + round((middle - self.low) / self.step) * self.step
        return round(middle) if self.whole else middle

    def ends(self) -> list[Any]:
        """Return the values that must be valid by themselves: both ends, or every choice."""
        if self.choices:
            return list(self.choices)
        return [int(end) if self.whole else end for end in (self.low, self.high)]  # pyright: ignore[reportArgumentType]

    def position(self, value: Any) -> float:
        """Return where a value lies, 0 to 1; choices are spaced evenly, in their order."""
        if self.choices:
            return self.choices.index(value) / max(1, len(self.choices) - 1)
        assert self.low is not None
        assert self.high is not None
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def as_json(self) -> dict[str, Any]:
        """Return it as a recipe's value, with its default."""
        said: dict[str, Any] = {"default": self.default}
        if self.choices:
            said["choices"] = list(self.choices)
        else:
            said |= {"low": self.low, "high": self.high, "log": self.log}
            if self.step is not None:
                said["step"] = self.step
        if self.when:
            said["when"] = {key: list(values) for key, values in self.when.items()}
        return said


def is_range(value: Any) -> bool:
    """Whether a value of a recipe is a range: a mapping that has its ends, or choices."""
    if not isinstance(value, dict):
        return False
    words = cast("dict[str, Any]", value)
    return "choices" in words or "low" in words or "high" in words


def read_range(key: str, value: Mapping[str, Any], *, whole: bool) -> Range:
    """Read a range from a recipe.

    Args:
        key: dotted, for messages.
        value: the mapping.
        whole: whether the key takes whole numbers.

    Raises:
        RecipeError: a word that is not known, an end that is missing or no number, ends in the
            wrong order, no choices, or the same choice twice.
    """
    for word in value:
        if word not in WORDS:
            raise RecipeError(
                f"{key}: a range has no {word!r}{did_you_mean(str(word), WORDS)}; it has "
                f"{', '.join(WORDS)}"
            )
    when = _conditions(key, value.get("when"))
    if "choices" in value:
        return _of_choices(key, value, when)
    low, high = _number(key, "low", value.get("low")), _number(key, "high", value.get("high"))
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise RecipeError(f"{key}: log is true or false, got {log!r}")
    step = None if value.get("step") is None else _number(key, "step", value["step"])
    if low > high:
        raise RecipeError(f"{key}: low {low:g} is above high {high:g}")
    if log and low <= 0:
        raise RecipeError(f"{key}: a logarithmic range begins above 0, got low {low:g}")
    if step is not None and (log or step <= 0):
        raise RecipeError(f"{key}: step is a positive number, and not for log: true")
    if whole and any(number != int(number) for number in (low, high, step or 1)):
        raise RecipeError(f"{key} takes whole numbers; low, high and step must be whole")
    default: Any = value.get("default")
    if default is not None:
        default = _number(key, "default", default)
        default = int(default) if whole else default
    found = Range(key, low, high, log, step, whole, default=default, when=when)
    if default is not None and not found.contains(default):
        raise RecipeError(f"{key}: its default {default:g} is not in the range {found.text}")
    return found


def _of_choices(key: str, value: Mapping[str, Any], when: Mapping[str, tuple[Any, ...]]) -> Range:
    other = [word for word in ("low", "high", "log", "step") if word in value]
    if other:
        raise RecipeError(f"{key}: choices stand alone; omit {', '.join(other)}")
    choices: Any = value["choices"]
    if not isinstance(choices, list) or not choices:
        raise RecipeError(f"{key}: choices is a list of values, got {choices!r}")
    listed = [_plain(one) for one in cast("list[Any]", choices)]
    if len({as_yaml(one) for one in listed}) < len(listed):
        raise RecipeError(f"{key}: a choice stands twice in {as_yaml(listed)}")
    default = _plain(value.get("default"))
    found = Range(key, choices=tuple(listed), default=default, when=when)
    if default is not None and default not in listed:
        raise RecipeError(f"{key}: its default {as_yaml(default)} is not among its choices")
    return found


def _conditions(key: str, value: Any) -> dict[str, tuple[Any, ...]]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not value:
        raise RecipeError(
            f"{key}: when names other keys and their values, as in "
            f"{{adapter.kind: [lora, dora]}}; got {value!r}"
        )
    found: dict[str, tuple[Any, ...]] = {}
    for name, allowed in cast("dict[str, Any]", value).items():
        several = cast("list[Any]", allowed) if isinstance(allowed, list) else [allowed]
        found[str(name)] = tuple(_plain(one) for one in several)
    return found


def _number(key: str, word: str, value: Any) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        missing = "is missing" if value is None else f"is a number, got {value!r}"
        raise RecipeError(f"{key}: {word} {missing}")
    return value


def _plain(value: Any) -> Any:
    """Return a value with numbers that YAML 1.1 reads as text, such as 1e-5, as numbers."""
    if isinstance(value, str):
        try:
            return float(value) if value[:1] in "0123456789.-+" else value
        except ValueError:
            return value
    return value


def _or(values: tuple[Any, ...]) -> str:
    return " or ".join(map(as_yaml, values))
