"""What sections of a recipe contradict: checks over several of them, raised as ValueError."""

from __future__ import annotations

from etude.tuning.config.sections.adapter import AdapterSpec
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.config.sections.model import ModelSpec
from etude.tuning.config.sections.objective import SELF, ObjectiveSpec
from etude.tuning.config.sections.quant import QuantSpec
from etude.tuning.config.sections.train import TrainSpec


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
    own = {
        "teacher": spec.teacher is not None,
        "divergence": spec.divergence != "forward_kl",
        "teacher_temperature": spec.teacher_temperature != 2.0,
        "label_weight": spec.label_weight != 0.5,
        "jsd_beta": spec.jsd_beta != 0.5,
    }
    if spec.kind != "distill":
        if named := [key for key, changed in own.items() if changed]:
            raise ValueError(
                f"objective.{named[0]} is for objective.kind: distill, not {spec.kind}; omit "
                "it, or change the kind"
            )
        return
    if task not in ("chat", "text-classification", "auto"):
        raise ValueError(
            f"objective.kind: distill is for task: chat and text-classification, not {task}"
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
    if spec.teacher == SELF and task == "text-classification":
        raise ValueError(
            "objective.teacher: self has no trained head to learn classes from; name a run"
        )
    if spec.teacher == SELF and adapter.kind == "full" and quant.kind == "none":
        raise ValueError(
            "objective.teacher: self is overwritten by full fine-tuning; name the model"
        )
