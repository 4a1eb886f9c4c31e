"""What a run's model forgot: the probe of base and tuned model, compared item by item."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etude.core.progress import Progress, SilentProgress
from etude.tuning.adapters.multi_adapter import adapter_disabled
from etude.tuning.forgetting.base_scores import keep_scores, read_scores, scores_file
from etude.tuning.forgetting.probe import Probe, Scores
from etude.tuning.models.load import load_model
from etude.tuning.predictor import Predictor, load
from etude.tuning.report.paired import compare_scores
from etude.tuning.runs.folder import RunFolder

RECORD = "forgetting.json"

EXAMPLES = 12
"""Instructions that only one of the two followed, which are kept to be read."""


@dataclass(frozen=True)
class Change:
    """How a measure of the probe changed by fine-tuning."""

    name: str
    """`questions`, `prose` or `instructions`."""
    items: int
    base: float
    """Share of items, 0 to 100; of prose, nats a token."""
    tuned: float
    low: float
    high: float
    """Bounds of the 95 % interval of tuned − base."""
    p: float
    """Of a difference as large by chance alone, by a paired permutation test."""
    better: int
    """Items on which the tuned model is better."""
    worse: int


def measure_forgetting(
    folder: RunFolder, *, text: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Ask a run's model and its base the probe; write and return `forgetting.json` of the run.

    Args:
        folder: a finished run of a model that generates text.
        text: a file of prose that takes the place of Python's language reference.
        progress: reports every stage.

    Raises:
        EtudeError: the run has no model yet, its model generates no text, or the text cannot be
            used.
    """
    progress = progress or SilentProgress()
    began = time.perf_counter()
    tuned = load(folder, progress=progress)
    probe = Probe(tuned.loaded, text)
    with tuned.loaded.placement.autocast_context():
        scores = probe.measure(progress)
    base, kept = _base_scores(tuned, probe, text, progress)
    changes = [
        change
        for name, ours, theirs in (
            ("questions", base.right, scores.right),
            ("prose", base.nats, scores.nats),
            ("instructions", base.followed, scores.followed),
        )
        if (change := _change(name, ours, theirs)) is not None
    ]
    record = {
        "version": 1,
        "prose": probe.prose,
        "base_kept": kept,
        "seconds": time.perf_counter() - began,
        "notes": probe.notes,
        "changes": [asdict(change) for change in changes],
        "examples": _examples(probe, base, scores),
    }
    folder.write_json(RECORD, record)
    return record


def _base_scores(
    tuned: Predictor, probe: Probe, text: Path | None, progress: Progress
) -> tuple[Scores, bool]:
    """Return the scores of the base, and whether they were kept from before."""
    recipe = tuned.recipe
    if tuned.adapted:
        file = scores_file(probe, tuned.loaded, recipe.quant)
        if (known := read_scores(file)) is not None:
            return known, True
        with adapter_disabled(tuned.loaded.model), tuned.loaded.placement.autocast_context():
            scores = probe.measure(progress)
    else:
        # Full fine-tuning replaced the base, which is read anew.
        loaded = load_model(recipe.model, recipe.quant, progress)
        probe = Probe(loaded, text)
        file = scores_file(probe, loaded, recipe.quant)
        if (known := read_scores(file)) is not None:
            return known, True
        with loaded.placement.autocast_context():
            scores = probe.measure(progress)
    keep_scores(file, scores)
    return scores, False


def _change(name: str, base: Sequence[float], tuned: Sequence[float]) -> Change | None:
    """Compare both models on the items of one measure; None where there are none."""
    if not base:
        return None
    scale = 1.0 if name == "prose" else 100.0
    ours, theirs = ([scale * value for value in values] for values in (base, tuned))
    test = compare_scores("base", "tuned", name, ours, theirs)
    lower_is_better = name == "prose"
    return Change(
        name,
        len(ours),
        math.fsum(ours) / len(ours),
        math.fsum(theirs) / len(theirs),
        test.low,
        test.high,
        test.p,
        better=test.worse if lower_is_better else test.better,
        worse=test.better if lower_is_better else test.worse,
    )


def _examples(probe: Probe, base: Scores, tuned: Scores) -> list[dict[str, Any]]:
    """Return instructions that only one of the two followed, those that were lost first."""
    rows = [
        {
            "prompt": one.prompt,
            "base": base.answers[index],
            "tuned": tuned.answers[index],
            "lost": base.followed[index] > tuned.followed[index],
        }
        for index, one in enumerate(probe.instructions)
        if base.followed[index] != tuned.followed[index]
    ]
    return sorted(rows, key=lambda row: not row["lost"])[:EXAMPLES]
