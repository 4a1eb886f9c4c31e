"""`objective`: the training objective."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from etude.tuning.config.sections.base import Section


class ObjectiveSpec(Section):
    """The training objective."""

    kind: Literal["auto", "sft", "dpo", "orpo", "kto"] = "auto"
    """`sft`: cross-entropy of the answers. `dpo`, `orpo`: preference pairs (Rafailov et al. 2023;
    Hong et al. 2024). `kto`: unpaired preferences (Ethayarajh et al. 2024). `auto`: `dpo` for
    pairs, `kto` for unpaired preferences, else `sft`. Tasks other than chat have one objective
    each."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """β, strength of the regularisation towards the base model (DPO, KTO)."""

    odds_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight λ of ORPO's odds-ratio term."""

    desirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of desirable answers (KTO)."""

    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of undesirable answers (KTO)."""

    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Temperature τ of the contrastive loss (`task: embedding`); sentence-transformers' `scale` is
    1/τ."""

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed fraction of wrong labels. Of pairs, that were swapped (DPO). Of classes, that are any
    of them with equal probability (text classification, one class a row; Szegedy et al. 2016);
    evaluations report the loss without it."""

    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the loss (text classification). `balanced`: n / (classes · n_c), as
    in scikit-learn; for several labels a row, samples without a label / samples with it. The loss
    of a step is divided by its sum of weights; evaluations report the loss without weights."""

    focal_gamma: Annotated[float, Field(ge=0)] = 0.0
    """γ of the focal loss: samples predicted with probability p count (1 − p)^γ times (text
    classification; Lin et al. 2017). 0: cross-entropy."""
