"""Proposing a learning rate for a recipe by a range test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.core.errors import RecipeError

if TYPE_CHECKING:
    from etude.app.tune import PlannedRun
    from etude.core.progress import Progress
    from etude.tuning.callbacks import Callback
    from etude.tuning.report.chart import Chart
    from etude.tuning.training.lr_range import RangeTest

ADAPTER_RATES = 1e-4, 1.0
"""Rates between which adapters and heads are tested."""

FULL_RATES = 1e-6, 1e-2
"""Rates between which full fine-tuning is tested."""


@dataclass(frozen=True)
class FoundRate:
    """A range test of a recipe, and what it says."""

    test: RangeTest
    name: str
    """Of the recipe."""
    current: float
    """`train.lr` of the recipe."""

    @property
    def drawn(self) -> list[float | None]:
        """The smoothed losses to draw; None where they had diverged, which is out of scale."""
        test = self.test
        top = 1.05 * max(test.smoothed[: test.lowest + 1])
        return [value if value <= top else None for value in test.smoothed]

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"recipe": self.name, "train.lr": self.current, **self.test.as_json()}

    def svg(self) -> str:
        """Return the curve as an SVG file."""
        from etude.tuning.report.axis import linear_axis, logarithmic_axis
        from etude.tuning.report.chart import decimal_tick, exponent_tick
        from etude.tuning.report.svg import Curve, Guide, svg_chart

        test = self.test
        x_axis = logarithmic_axis(test.rates, exponent_tick)
        assert x_axis is not None  # rates are positive
        low, high = test.flat
        guides = [Guide(low, "flat", until=high)]
        if test.fell:
            guides.append(Guide(test.proposal, f"{test.proposal:.1e}"))
        known = [value for value in self.drawn if value is not None]
        return svg_chart(
            f"Learning-rate range test: {self.name}",
            [Curve("loss, smoothed", test.rates, self.drawn)],
            (x_axis, linear_axis(known, decimal_tick)),
            ("learning rate", f"loss, smoothed ({test.unit})"),
            guides=guides,
        )

    def html(self) -> str:
        """Return a page with the curve and the figures, complete without anything else."""
        from etude.tuning.report.html import render_page

        test = self.test
        low, high = test.flat
        return render_page(
            "lr_find.html",
            {
                "kind": "Learning-rate range test",
                "name": self.name,
                "lede": self.sentence(),
                "banner": "",
                "sections": [("curve", "Loss over learning rate"), ("figures", "Figures")],
                "source": "one range test",
                "chart": self._chart(),
                "facts": [
                    ("train.lr of the recipe", f"{self.current:g}"),
                    ("loss falls fastest at", f"{test.rates[test.steepest]:.1e}"),
                    ("loss is lowest at", f"{test.rates[test.lowest]:.1e}"),
                    ("flat neighbourhood", f"{low:.1e} to {high:.1e}"),
                    ("steps", f"{len(test.rates)}, ended {test.ended}"),
                ],
                "points": [
                    (f"{rate:.2e}", f"{loss:.4f}", f"{smoothed:.4f}")
                    for rate, loss, smoothed in zip(
                        test.rates, test.losses, test.smoothed, strict=True
                    )
                ],
            },
        )

    def _chart(self) -> Chart:
        """Draw the smoothed curve for a page, up to where it is higher than before its lowest."""
        from etude.core import units as q
        from etude.tuning.report.axis import Axis, linear_axis, logarithmic_axis
        from etude.tuning.report.chart import Line, decimal_tick, exponent_tick, plane_chart

        test = self.test
        points = [(r, y) for r, y in zip(test.rates, self.drawn, strict=True) if y is not None]
        powers = logarithmic_axis(test.rates, exponent_tick)
        assert powers is not None  # rates are positive
        # The page's script reads places on a linear axis: of the rates' logarithms.
        across = Axis(math.log10(powers.low), math.log10(powers.high), powers.ticks)
        values = [y for _, y in points]
        return plane_chart(
            "range",
            "Loss",
            Line("loss", "main", [math.log10(rate) for rate, _ in points], values, q.loss),
            unit=f"{test.unit}, smoothed",
            x_label="learning rate",
            at=[q.rate(rate) for rate, _ in points],
            axes=(across, linear_axis(values, decimal_tick)),
            summary=f"lowest {q.loss(test.smoothed[test.lowest])}",
        )

    def sentence(self) -> str:
        """Return the proposal, or why there is none, in a sentence."""
        test = self.test
        if not test.fell:
            return (
                "The loss fell at no rate by more than its noise, so none is proposed: take more "
                "steps (--steps), or check the data (etude data check)."
            )
        return f"Proposed: train.lr {test.proposal:g}."


def find_lr(
    plan: PlannedRun,
    *,
    low: float | None = None,
    high: float | None = None,
    steps: int = 100,
    base: Path = Path("runs"),
    callbacks: Callback,
    progress: Progress,
    ignore_memory: bool = False,
) -> FoundRate:
    """Take a range test of a planned run.

    Args:
        plan: from `app.tune.plan_run`.
        low: first learning rate; None: by the method.
        high: last learning rate; None: by the method.
        steps: optimiser steps at most.
        base: folder that runs are kept in, for adapter.start_from.
        callbacks: told of what the user should know.
        progress: reports every stage.
        ignore_memory: begin even if the memory estimate says that it cannot fit.

    Raises:
        RecipeError: the range is empty.
        EtudeError: the recipe, the model, the data or the machine is unsuitable.
    """
    from etude.tuning.lr_find import find_learning_rate

    default = FULL_RATES if plan.recipe.adapter.kind == "full" else ADAPTER_RATES
    first, last = low or default[0], high or default[1]
    if first >= last:
        raise RecipeError(f"the lowest rate {first:g} is not below the highest, {last:g}")
    test = find_learning_rate(
        plan.recipe,
        low=first,
        high=last,
        steps=steps,
        base=base,
        callbacks=callbacks,
        progress=progress,
        ignore_memory=ignore_memory,
    )
    return FoundRate(test, plan.recipe.name, plan.recipe.train.lr)
