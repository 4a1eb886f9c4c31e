"""Scores of bases, kept by the hash of their weights: a base is asked once, not once a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from etude.core.atomic_files import replace_text, to_json
from etude.core.paths import home
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.forgetting.probe import Probe, Scores
from etude.tuning.models.load import LoadedModel


def scores_file(probe: Probe, loaded: LoadedModel, quant: QuantSpec) -> Path:
    """Return where the scores of a base are kept.

    Args:
        probe: what it was asked.
        loaded: the base: its weights, and the dtype that it computes in.
        quant: how it was quantised.
    """
    depends = [loaded.origin.fingerprint, quant.model_dump(), str(loaded.dtype), probe.key]
    name = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:24]
    return home() / "forgetting" / f"{name}.json"


def read_scores(file: Path) -> Scores | None:
    """Return scores that were kept; None if there are none, or the file is damaged."""
    try:
        return Scores(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def keep_scores(file: Path, scores: Scores) -> None:
    """Keep the scores of a base."""
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, to_json(asdict(scores)))
