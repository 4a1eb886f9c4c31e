"""Measuring a finished run again: on its own held-out data, or on a file."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from etude.core.errors import RunError
from etude.core.progress import Progress, SilentProgress
from etude.tuning.adapters.multi_adapter import adapter_disabled
from etude.tuning.artifacts import PreparedData
from etude.tuning.config.recipe import Recipe
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.encode import Encoder
from etude.tuning.data.encoded import EncodedSet
from etude.tuning.data.samples import load_samples
from etude.tuning.objectives.reference import CachedReference
from etude.tuning.objectives.select import make_objective
from etude.tuning.pipeline import REFERENCE, measure, prepare
from etude.tuning.predictor import load
from etude.tuning.runs.folder import RunFolder

_COLUMNS = ("prompt", "completion", "text", "chosen", "rejected", "label", "tools", "format")


def evaluate_run(
    folder: RunFolder,
    *,
    data: Path | None = None,
    base: bool = False,
    generate: int | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure a run's model, and its base if asked.

    Args:
        folder: a finished run.
        data: a file to evaluate on, every row of it; None: the run's own held-out samples.
        base: also measure the model without its adapter.
        generate: answers to generate; None: as many as the run's recipe says.
        progress: told of every stage.

    Returns:
        By voice (`tuned`, `base`): loss, in `unit`; perplexity, where that is nats per trained
        token; what else the objective tells; rouge (0 to 100, or None), samples.

    Raises:
        EtudeError: the run is not finished, or the data cannot be used.
    """
    progress = progress or SilentProgress()
    recipe = Recipe.read_run(folder.recipe)
    if generate is not None:
        recipe = recipe.model_copy(
            update={"eval": recipe.eval.model_copy(update={"generate": generate})}
        )
    tuned = load(folder, progress=progress)
    if base and not tuned.adapted:
        raise RunError("full fine-tuning changed the base itself, so there is none to compare with")
    if data is None:
        prepared = prepare(recipe, tuned.loaded, progress)
    else:
        prepared = _whole_file(data, recipe, tuned.encoder)
    held_out = prepared.eval.samples
    reference = None if tuned.adapted else CachedReference(folder.read_json(REFERENCE) or {})
    objective = make_objective(recipe.objective, [], held_out, recipe.train.seed, reference)
    results: dict[str, dict[str, Any]] = {}
    for voice in ["tuned", "base"] if base else ["tuned"]:
        silenced = adapter_disabled(tuned.loaded.model)
        with silenced if voice == "base" else nullcontext():
            measured = measure(tuned.loaded, prepared, recipe, progress, objective)
        results[voice] = {
            "loss": measured.loss,
            "unit": objective.unit,
            **({"perplexity": math.exp(measured.loss)} if objective.name == "sft" else {}),
            **measured.metrics,
            "rouge": measured.mean_rouge,
            "samples": len(prepared.eval.samples),
        }
    return results


def _whole_file(data: Path, recipe: Recipe, encoder: Encoder) -> PreparedData:
    """Read a file as evaluation data only; columns are those of the run where it read files."""
    columns = _COLUMNS if recipe.data.kind != "docstrings" else ()
    spec = DataSpec(
        train=str(data),
        eval_fraction=0.0,
        system=recipe.data.system,
        **{name: getattr(recipe.data, name) for name in columns},
    )
    split = load_samples(spec, recipe.train.seed)
    encoded: EncodedSet = encoder.encode_all(split.train)
    return PreparedData(encoded, encoded, encoder, split.notes)
