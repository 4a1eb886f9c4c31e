"""What sections of a recipe contradict: checks over several of them, raised as ValueError."""

from __future__ import annotations

from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.objective import SELF, ObjectiveSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.config.sections.train import TrainSpec

_WITH_HEAD = ("text-classification", "token-classification")
"""Tasks of which only a run has the trained head that a teacher needs."""


def check_images(
    data: DataSpec, train: TrainSpec, objective: ObjectiveSpec, model: ModelSpec
) -> None:
    """Refuse options of texts in a recipe of images."""
    refused = {
        f"data.kind: {data.kind}": data.kind != "files",
        f"data.label_kind: {data.label_kind}": data.label_kind not in ("auto", "class"),
        "data.label_columns": bool(data.label_columns),
        "data.label_separator": data.label_separator is not None,
        f"objective.kind: {objective.kind}": objective.kind != "auto",
        "data.text_pair": data.text_pair is not None,
        "train.neftune_alpha": train.neftune_alpha is not None,
        "model.add_tokens": model.adds_tokens,
    }
    if named := [key for key, changed in refused.items() if changed]:
        raise ValueError(
            f"{named[0]} is not for task: image-classification, in which each image of a file or "
            "folder has one class; omit it"
        )


def check_weights(train: TrainSpec, adapter: AdapterSpec) -> None:
    """Refuse what decays or averages weights that it is not defined for."""
    if train.delta_decay > 0:
        if adapter.kind != "lora":
            raise ValueError(
                "train.delta_decay decays ΔW = U Vᵀ of adapter.kind: lora, not of "
                f"{adapter.kind}; omit it, or set train.weight_decay"
            )
        if adapter.init in ("pissa", "olora", "loftq"):
            raise ValueError(
                f"train.delta_decay: with adapter.init: {adapter.init} the adapter begins as a "
                "part of the base, which would decay; omit it, or set adapter.init: default"
            )
    if train.ema_decay is not None and adapter.kind == "adalora":
        raise ValueError(
            "train.ema_decay: AdaLoRA sets pruned ranks to zero, which an average would bring "
            "back; omit it, or set adapter.kind: lora"
        )


def check_teacher(task: str, spec: ObjectiveSpec, adapter: AdapterSpec, quant: QuantSpec) -> None:
    """Refuse a teacher without distillation, and distillation that has nothing to learn."""
    stored = {
        "scores_kind": spec.scores_kind != "top_k",
        "scores_per_position": spec.scores_per_position != 64,
    }
    if spec.teacher_scores is None and (named := [key for key, set_ in stored.items() if set_]):
        raise ValueError(f"objective.{named[0]} is for objective.teacher_scores; omit it")
    own = {
        "teacher": spec.teacher is not None,
        "divergence": spec.divergence != "forward_kl",
        "teacher_temperature": spec.teacher_temperature != 2.0,
        "label_weight": spec.label_weight != 0.5,
        "jsd_beta": spec.jsd_beta != 0.5,
        "teacher_scores": spec.teacher_scores is not None,
        "hidden_weight": spec.hidden_weight > 0,
    }
    if spec.hidden_layers is not None and spec.hidden_weight == 0:
        raise ValueError("objective.hidden_layers is for objective.hidden_weight; omit it")
    if spec.hidden_layers == []:
        raise ValueError("objective.hidden_layers: [] names no layers; omit it for all of them")
    if spec.kind != "distill":
        if named := [key for key, changed in own.items() if changed]:
            raise ValueError(
                f"objective.{named[0]} is for objective.kind: distill, not {spec.kind}; omit "
                "it, or change the kind"
            )
        return
    if task not in ("chat", *_WITH_HEAD, "auto"):
        raise ValueError(
            "objective.kind: distill is for task: chat, text-classification and "
            f"token-classification, not {task}"
        )
    if spec.teacher is None:
        raise ValueError(
            "objective.kind: distill needs objective.teacher: a run, a model with the same "
            "tokenizer, or self"
        )
    if spec.jsd_beta != 0.5 and spec.divergence != "jsd":
        raise ValueError("objective.jsd_beta is for objective.divergence: jsd; omit it")
    if spec.label_smoothing or spec.focal_gamma or spec.class_weights != "none":
        raise ValueError(
            "objective.kind: distill takes the labels as they are: omit label_smoothing, "
            "focal_gamma and class_weights"
        )
    if spec.teacher == SELF and task in _WITH_HEAD:
        raise ValueError(
            "objective.teacher: self has no trained head to learn classes from; name a run"
        )
    if spec.teacher == SELF and adapter.kind == "full" and quant.kind == "none":
        raise ValueError(
            "objective.teacher: self is overwritten by full fine-tuning; name the model"
        )
    if spec.hidden_weight > 0 and spec.teacher_scores is not None:
        raise ValueError(
            "objective.hidden_weight asks the teacher in every step, and objective.teacher_scores "
            "is for runs without one; omit either"
        )
    if spec.scores_kind == "sampled" and spec.divergence != "forward_kl":
        raise ValueError(
            f"objective.scores_kind: sampled estimates the forward KL, not {spec.divergence}; set "
            "objective.scores_kind: top_k"
        )
