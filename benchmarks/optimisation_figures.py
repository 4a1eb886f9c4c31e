"""Draw the figures of docs/optimisation.md.

    python benchmarks/optimisation_figures.py [--folder docs/images]

`schedules.svg`: every schedule of a recipe over 200 steps, with 10 % of warm-up; the plateau's
evaluations, every 20 steps, never improve. `decay.svg`: the singular values of ΔW = B A at the
minimum of ½‖B A − T‖² in float64, over those of T, without decay, with decay of the factors and
with decay of ΔW, both with λ = 0.5: found by gradient descent with the functions that runs use, not
drawn from their formulas, which are printed beside them. Ten seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from etude.app.schedule import recipe_schedule
from etude.core.atomic_files import replace_text
from etude.tuning.config.shipped import find_recipe
from etude.tuning.optim.delta_decay import decay_delta
from etude.tuning.optim.schedules import SCHEDULES
from etude.tuning.report.axis import linear_axis
from etude.tuning.report.chart import decimal_tick
from etude.tuning.report.svg import Curve, svg_chart, svg_panels

STEPS = 200
DECAY = 0.5
RATE = 0.02


def schedules() -> str:
    """Return the figure of the schedules, as fractions of the peak."""
    own = {
        "cosine_with_restarts": ["train.lr_cycles=3"],
        "reduce_lr_on_plateau": ["train.eval_every=20"],
    }
    curves: list[Curve] = []
    for name in SCHEDULES:
        drawn = recipe_schedule(
            find_recipe("docstrings"),
            [
                "train.lr=1",
                f"train.lr_scheduler={name}",
                "train.warmup_ratio=0.1",
                *own.get(name, []),
            ],
            steps=STEPS,
        )
        curves.append(Curve(name, range(1, STEPS + 1), drawn.rates))
    return svg_panels(
        f"Learning rate over {STEPS} steps",
        curves,
        (
            linear_axis([0, STEPS], decimal_tick, tight=True, count=8),
            linear_axis([0, 1], decimal_tick),
        ),
        ("the steps", "Fraction of the peak (train.lr)"),
    )


def minimum(singular: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the singular values of B A at the minimum, T's being `singular`.

    Args:
        singular: (n,), float64.
        kind: `none`, `factors` or `delta`.
    """
    T = torch.diag(singular)
    generator = torch.Generator().manual_seed(0)
    n = len(singular)
    A, B = (0.1 * torch.randn(n, n, generator=generator, dtype=torch.float64) for _ in range(2))
    for _ in range(20_000):
        G = B @ A - T
        grad_A, grad_B = B.T @ G, G @ A.T
        if kind == "factors":
            A *= 1 - RATE * DECAY
            B *= 1 - RATE * DECAY
        elif kind == "delta":
            assert decay_delta(A, B, 1.0, RATE * DECAY, RATE * DECAY)
        A -= RATE * grad_A
        B -= RATE * grad_B
    return (B @ A).diag()


def decay() -> str:
    """Return the figure of the two decays, and print its numbers."""
    singular = torch.linspace(0, 3, 13, dtype=torch.float64)
    names = {
        "none": "no decay",
        "factors": f"weight_decay {DECAY} (U and V)",
        "delta": f"delta_decay {DECAY} (ΔW)",
    }
    known = {
        "none": singular,
        "factors": (singular - DECAY).clamp(min=0),
        "delta": singular / (1 + DECAY),
    }
    curves: list[Curve] = []
    for kind, name in names.items():
        found = minimum(singular, kind)
        error = float((found - known[kind]).abs().max())
        print(f"{name:<36} largest distance from the known minimum {error:.1e}")
        curves.append(Curve(name, singular.tolist(), found.tolist()))
    return svg_chart(
        "What each decay leaves of ΔW",
        curves,
        (linear_axis([0, 3], decimal_tick), linear_axis([0, 3], decimal_tick)),
        ("singular value of the best ΔW without decay", "singular value of ΔW"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    folder = Path(__file__).resolve().parent.parent / "docs" / "images"
    parser.add_argument("--folder", type=Path, default=folder)
    options = parser.parse_args()
    for name, drawn in (("schedules", schedules()), ("decay", decay())):
        file = options.folder / f"{name}.svg"
        replace_text(file, drawn)
        print(f"written: {file}")


if __name__ == "__main__":
    main()
