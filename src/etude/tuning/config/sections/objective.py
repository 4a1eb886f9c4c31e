"""`objective`: the training objective."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from etude.tuning.config.sections.base import Section

SELF = "self"
"""The teacher that is the student's own base."""


class ObjectiveSpec(Section):
    """The training objective."""

    kind: Literal["auto", "sft", "dpo", "orpo", "kto", "distill"] = "auto"
    """`sft`: cross-entropy of the answers. `distill`: a teacher's distributions as well, of tokens
    (chat), classes (text classification, one class a row) or the tags of words (token
    classification; docs/distillation.md). `dpo`, `orpo`: preference pairs (Rafailov et al. 2023;
    Hong et al. 2024). `kto`: unpaired preferences (Ethayarajh et al. 2024). `auto`: `dpo` for
    pairs, `kto` for unpaired preferences, else `sft`. Other tasks have one objective each."""

    teacher: str | None = None
    """Of `distill`: a run (`latest`, its name or folder), a model with the same tokenizer, or
    `self`: the recipe's own base, unquantised (with `quant.kind: none` the model itself with its
    adapter disabled, which takes no second model)."""

    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    """Of `distill`: KL(teacher ‖ student), KL(student ‖ teacher), or the generalised Jensen-Shannon
    divergence between them (Agarwal et al. 2024)."""

    teacher_temperature: Annotated[float, Field(gt=0)] = 2.0
    """Of `distill`: T of both distributions in the divergence, which is multiplied by T² (Hinton et
    al. 2015)."""

    label_weight: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Of `distill`: weight of the cross-entropy of the labels; the divergence has the rest."""

    jsd_beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """β of `divergence: jsd`, the teacher's share of the mixture."""

    teacher_scores: str | None = None
    """Of `distill`: a folder with the teacher's scores of the training samples. What it lacks is
    stored before the first step; once all is there, no run loads the teacher (`etude
    teacher-scores`). None: the teacher is asked in every step."""

    scores_kind: Literal["top_k", "sampled"] = "top_k"
    """Of `teacher_scores`, for each position: the likeliest words, all others as one, or words
    drawn from the teacher, an unbiased estimate (`divergence: forward_kl` only; Anshumann et al.
    2025)."""

    scores_per_position: Annotated[int, Field(ge=1, lt=1 << 16)] = 64
    """Of `teacher_scores`: words, or draws, of each position."""

    hidden_weight: Annotated[float, Field(ge=0)] = 0.0
    """λ of `distill`: weight of the mean squared distance between the hidden states of student and
    teacher at the trained positions, the student's multiplied by a learned matrix (Romero et al.
    2015). 0: they are not compared."""

    hidden_layers: list[Annotated[list[int], Field(min_length=2, max_length=2)]] | None = None
    """Of `hidden_weight`: pairs, after how many layers of the student and of the teacher. None:
    after each of the student's but the last, at the same share of the teacher's."""

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
