"""Selection of a run's objective: the recipe's, or the default for its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from etude.core.errors import DataError
from etude.tuning.config.sections.objective import ObjectiveSpec
from etude.tuning.data.encoded import EncodedSample
from etude.tuning.objectives.base import SFT, Objective
from etude.tuning.objectives.preference import DPO, KTO, ORPO, mismatched_partners
from etude.tuning.objectives.reference import AdapterDisabledReference, Reference

Kind = Literal["sft", "dpo", "orpo", "kto", "distill"]


def objective_kind(spec: ObjectiveSpec, samples: Sequence[EncodedSample]) -> Kind:
    """Return the objective that `spec` names, or the default one for `samples`.

    Raises:
        DataError: the samples do not suit the named objective, or are of several kinds.
    """
    pairs = [sample for sample in samples if sample.rejected is not None]
    unpaired = [sample for sample in samples if sample.desirable is not None]
    if spec.kind == "auto" and len({len(pairs), 0, len(samples)}) == 3:
        raise DataError("the data mix pairs of answers with other samples; separate them")
    kind: Kind = spec.kind if spec.kind != "auto" else _natural(pairs, unpaired)
    if kind in ("sft", "distill") and unpaired:
        raise DataError(
            f"{unpaired[0].origin}: objective.kind: {kind} would also train undesirable answers; "
            "use kto, or remove them from the data and set data.format to prompt_completion"
        )
    fitting = {"sft": samples, "distill": samples, "dpo": pairs, "orpo": pairs, "kto": unpaired}[
        kind
    ]
    if len(fitting) < len(samples):
        known = set(fitting)
        other = next(sample for sample in samples if sample not in known)
        wants = "unpaired preferences" if kind == "kto" else "pairs of answers"
        columns = "prompt, completion, label" if kind == "kto" else "prompt, chosen, rejected"
        raise DataError(
            f"{other.origin}: objective.kind {kind} requires {wants} ({columns}), but this row is "
            "something else; see data.format"
        )
    return kind


def _natural(pairs: Sequence[EncodedSample], unpaired: Sequence[EncodedSample]) -> Kind:
    if pairs:
        return "dpo"
    return "kto" if unpaired else "sft"


def make_objective(
    spec: ObjectiveSpec,
    train: Sequence[EncodedSample],
    held_out: Sequence[EncodedSample],
    seed: int,
    reference: Reference | None = None,
) -> Objective:
    """Return the objective of a run; for distillation, that of the labels alone.

    Args:
        spec: the objective section of the recipe.
        train: training samples.
        held_out: evaluation samples.
        seed: the run's seed.
        reference: for DPO and KTO; None: the model with its adapter disabled.

    Raises:
        DataError: the samples do not suit the objective.
    """
    kind = objective_kind(spec, [*train, *held_out])
    reference = reference or AdapterDisabledReference()
    if kind == "dpo":
        return DPO(spec, reference)
    if kind == "orpo":
        return ORPO(spec)
    if kind == "kto":
        partners: dict[EncodedSample, EncodedSample] = {}
        for side in (train, held_out):
            if len(side) == 1:
                raise DataError(
                    f"{side[0].origin}: kto compares with the answers of other samples, but the "
                    "training or evaluation data have only this one; add samples"
                )
            partners |= mismatched_partners(side, seed) if side else {}
        return KTO(spec, reference, partners)
    return SFT()


def reference_samples(
    objective: Objective, samples: Sequence[EncodedSample]
) -> list[EncodedSample]:
    """Return the samples whose log π_ref(y|x) the objective needs, if any."""
    if isinstance(objective, DPO):
        return [side for sample in samples for side in sample.sides]
    if isinstance(objective, KTO):
        return [one for sample in samples for one in (sample, objective.partners[sample])]
    return []
