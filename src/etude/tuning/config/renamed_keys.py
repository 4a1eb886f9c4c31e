"""Renamed recipe keys, and the counterparts of keys of other fine-tuning programs.

A run's own recipe keeps working: `translated` replaces old names by current ones. A recipe written
by the user is refused with the current name (`answer`), because two names for one key would have
to be searched for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

RENAMED: Mapping[str, str] = {
    "adapter.start": "adapter.init",
    "adapter.targets": "adapter.target_modules",
    "train.clip": "train.max_grad_norm",
    "train.checkpointing": "train.gradient_checkpointing",
    "train.lr_ratio_b": "train.loraplus_lr_ratio",
    "train.schedule": "train.lr_scheduler",
    "train.warmup": "train.warmup_ratio",
    "train.final_lr": "train.min_lr_ratio",
    "objective.wanted_weight": "objective.desirable_weight",
    "objective.unwanted_weight": "objective.undesirable_weight",
}
"""Dotted keys of 0.1.0 and earlier, each with its current name in the same section."""

RENAMED_VALUES: Mapping[str, Mapping[str, str]] = {
    "task": {"causal-lm": "chat"},
    "adapter.kind": {"none": "full"},
    "data.format": {"judged": "unpaired_preference"},
    "objective.kind": {"completion": "sft"},
}
"""By current dotted key: values of 0.1.0 and earlier, each with its current name."""


VALUES_ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "train.lr_scheduler": {
        "constant_with_warmup": "constant (train.warmup_ratio or warmup_steps)",
        "cosine_with_min_lr": "cosine (train.min_lr_ratio)",
        "cosine_warmup_with_min_lr": "cosine (train.min_lr_ratio)",
        "wsd": "warmup_stable_decay",
        "onecycle": "one_cycle",
        "OneCycleLR": "one_cycle",
        "CosineAnnealingLR": "cosine",
        "CosineAnnealingWarmRestarts": "cosine_with_restarts (train.lr_cycles)",
        "LinearLR": "linear",
        "PolynomialLR": "polynomial (train.lr_power)",
        "ReduceLROnPlateau": "reduce_lr_on_plateau",
    }
}
"""By dotted key: values of transformers, PyTorch and Axolotl, each with Etude's."""


@dataclass(frozen=True)
class Counterpart:
    """Counterpart of a key of another program."""

    keys: tuple[str, ...]
    """Dotted keys of a recipe; empty if there is none."""

    note: str = ""
    """The difference, or Etude's behaviour without such a key."""


def _here(*keys: str, note: str = "") -> Counterpart:
    return Counterpart(keys, note)


def _absent(note: str) -> Counterpart:
    return Counterpart((), note)


_LR = _here("train.lr")
_EPOCHS = _here("train.epochs")
_LENGTH = _here("data.max_length")
_ALPHA = _here("adapter.alpha")
_DROPOUT = _here("adapter.dropout")
_TARGETS = _here("adapter.target_modules")
_MODEL = _here("model.id", note="or just `model: NAME`")
_DATA = _here("data.train", note="data.kind sets the kind of source")
_SCHEDULER = _here("train.lr_scheduler")
_OPTIMIZER = _here("train.optimizer")
_EVAL_SHARE = _here("data.eval_fraction")
_METHOD = _here("adapter.kind")
_STAGE = _here("objective.kind")
_SAVED = _here("adapter.modules_to_save")
_FOUR_BITS = _here("quant.kind", note="nf4 is the default")
_DOUBLE = _here("quant.double")
_ACCUMULATION = _here(
    "train.batch_samples",
    "train.micro_tokens",
    note="samples per step, and tokens per forward pass; the number of passes follows",
)
_DTYPE = _here("model.dtype")
_OUTPUT = _absent(
    "a run's folder is named after the recipe, in the directory of `etude tune --runs`"
)
_TEMPLATE = _absent("the model's own chat template is used")
_LOGGING = _absent("every step is written to the run's metrics.jsonl")
_ANSWERS_ONLY = _absent("only answers are trained; data.trained_turns selects which")
_WORKERS = _absent("data are encoded before training, without workers")

ELSEWHERE: Mapping[str, Counterpart] = {
    # Learning rate and length of training.
    "learning_rate": _LR,
    "num_train_epochs": _EPOCHS,
    "num_epochs": _EPOCHS,
    "max_train_steps": _here("train.max_steps"),
    "lr_scheduler_type": _SCHEDULER,
    "lr_scheduler_kwargs": _here(
        "train.min_lr_ratio",
        "train.lr_cycles",
        "train.lr_power",
        note="each schedule's options are keys of their own",
    ),
    "cosine_min_lr_ratio": _here("train.min_lr_ratio"),
    "num_warmup_steps": _here("train.warmup_steps"),
    "lr_warmup_steps": _here("train.warmup_steps"),
    "num_cycles": _here("train.lr_cycles", note="cosine_with_restarts"),
    "num_decay_steps": _here("train.lr_decay_steps", note="warmup_stable_decay"),
    "lr_end": _here("train.min_lr_ratio", note="as a fraction of train.lr"),
    "optim": _OPTIMIZER,
    "adam_beta1": _here("train.beta1"),
    "adam_beta2": _here("train.beta2"),
    "adam_epsilon": _absent("AdamW's epsilon is 1e-8"),
    "clip_grad_norm": _here("train.max_grad_norm"),
    "activation_checkpointing": _here("train.gradient_checkpointing"),
    "enable_activation_checkpointing": _here("train.gradient_checkpointing"),
    # Batches.
    "per_device_train_batch_size": _ACCUMULATION,
    "gradient_accumulation_steps": _ACCUMULATION,
    "micro_batch_size": _ACCUMULATION,
    "batch_size": _ACCUMULATION,
    "per_device_eval_batch_size": _here("eval.batch_samples", note="answers per batch"),
    "eval_batch_size": _here("eval.batch_samples", note="answers per batch"),
    # Adapter.
    "adapter_name_or_path": _here("adapter.start_from"),
    "lora_model_dir": _here("adapter.start_from"),
    "layers_to_transform": _here("adapter.layers"),
    "peft_layers_to_transform": _here("adapter.layers"),
    "lora_r": _here("adapter.rank"),
    "lora_rank": _here("adapter.rank"),
    "r": _here("adapter.rank"),
    "lora_alpha": _ALPHA,
    "lora_dropout": _DROPOUT,
    "lora_target_modules": _TARGETS,
    "lora_target": _TARGETS,
    "lora_target_linear": _TARGETS,
    "lora_attn_modules": _TARGETS,
    "use_rslora": _here("adapter.rslora"),
    "peft_use_rslora": _here("adapter.rslora"),
    "use_dora": _here("adapter.kind", note="dora"),
    "peft_use_dora": _here("adapter.kind", note="dora"),
    "init_lora_weights": _here("adapter.init"),
    "peft_init_lora_weights": _here("adapter.init"),
    "pissa_init": _here("adapter.init", note="pissa"),
    "lora_modules_to_save": _SAVED,
    "additional_target": _SAVED,
    "finetuning_type": _METHOD,
    "peft_type": _METHOD,
    "use_peft": _METHOD,
    "d_initial": _here("adapter.vera_initial"),
    "init_r": _here("adapter.adalora.initial_rank"),
    "target_r": _here("adapter.rank"),
    "tinit": _here("adapter.adalora.warmup", note="a fraction of all steps"),
    "tfinal": _here("adapter.adalora.settle", note="a fraction of all steps"),
    "deltaT": _here("adapter.adalora.every"),
    "orth_reg_weight": _here("adapter.adalora.orthogonality"),
    # Base and its precision.
    "base_model": _MODEL,
    "model_name_or_path": _MODEL,
    "model_type": _MODEL,
    "tokens": _here("model.add_tokens"),
    "added_tokens": _here("model.add_tokens"),
    "resize_vocab": _absent("the vocabulary grows with model.add_tokens"),
    "trainable_token_indices": _here("model.add_tokens", note="new tokens are trained"),
    "tokenizer_type": _absent("the tokenizer is the model's own"),
    "trust_remote_code": _absent("code in model repositories is never run"),
    "load_in_4bit": _FOUR_BITS,
    "load_in_8bit": _here("quant.kind", note="int8"),
    "quantization_bit": _FOUR_BITS,
    "bnb_4bit_quant_type": _FOUR_BITS,
    "bnb_4bit_use_double_quant": _DOUBLE,
    "double_quantization": _DOUBLE,
    "bnb_4bit_compute_dtype": _DTYPE,
    "torch_dtype": _DTYPE,
    "bf16": _here("model.dtype", note="bfloat16"),
    "fp16": _here("model.dtype", note="bfloat16 or float32; float16 is not supported"),
    "tf32": _here("model.dtype", note="tf32 is not supported"),
    "flash_attention": _absent("the attention implementation is selected automatically"),
    "flash_attn": _absent("the attention implementation is selected automatically"),
    "attn_implementation": _absent("the attention implementation is selected automatically"),
    # Data.
    "dataset": _DATA,
    "datasets": _DATA,
    "dataset_name": _DATA,
    "train_file": _DATA,
    "test_datasets": _here("data.eval"),
    "eval_dataset": _here("data.eval"),
    "val_set_size": _EVAL_SHARE,
    "val_size": _EVAL_SHARE,
    "dataset_text_field": _here("data.text"),
    "dataset_config": _here("data.config"),
    "max_seq_length": _LENGTH,
    "max_seq_len": _LENGTH,
    "cutoff_len": _LENGTH,
    "sequence_len": _LENGTH,
    "excess_length_strategy": _here("data.too_long"),
    "truncation_mode": _here("data.too_long"),
    "max_samples": _here("data.max_train"),
    "sample_packing": _here("data.packing"),
    "train_on_inputs": _ANSWERS_ONLY,
    "train_on_prompt": _ANSWERS_ONLY,
    "completion_only_loss": _ANSWERS_ONLY,
    "assistant_only_loss": _ANSWERS_ONLY,
    "roles_to_train": _here("data.trained_turns"),
    "default_system": _here("data.system"),
    "field_system": _here("data.system_column"),
    "interleave_probs": _here("data.train", note="a list of {path, weight}"),
    "mix_strategy": _here("data.train", note="a list of {path, weight}"),
    "dataset_mixer": _here("data.train", note="a list of {path, weight}"),
    "template": _TEMPLATE,
    "chat_template": _TEMPLATE,
    "dataset_num_proc": _WORKERS,
    "dataloader_num_workers": _WORKERS,
    "preprocessing_num_workers": _WORKERS,
    # Objective.
    "stage": _STAGE,
    "rl": _STAGE,
    "loss_type": _STAGE,
    "pref_loss": _STAGE,
    "pref_beta": _here("objective.beta"),
    "dpo_beta": _here("objective.beta"),
    "rl_beta": _here("objective.beta"),
    "orpo_alpha": _here("objective.odds_weight"),
    "kto_desirable_weight": _here("objective.desirable_weight"),
    "kto_undesirable_weight": _here("objective.undesirable_weight"),
    "dpo_label_smoothing": _here("objective.label_smoothing"),
    "neftune_noise_alpha": _here("train.neftune_alpha"),
    "ema": _here("train.ema_decay"),
    "use_ema": _here("train.ema_decay"),
    # Evaluation, checkpoints, records.
    "eval_steps": _here("train.eval_every"),
    "evals_per_epoch": _here("train.eval_every"),
    "eval_strategy": _here("train.eval_every"),
    "evaluation_strategy": _here("train.eval_every"),
    "save_steps": _here("train.save_every"),
    "saves_per_epoch": _here("train.save_every"),
    "save_strategy": _here("train.save_every"),
    "save_total_limit": _absent("the most recent checkpoints are kept, older ones removed"),
    "early_stopping_patience": _here("train.patience"),
    "resume_from_checkpoint": _absent("use `etude tune --resume RUN`"),
    "run_name": _here("name"),
    "output_dir": _OUTPUT,
    "overwrite_output_dir": _OUTPUT,
    "logging_steps": _LOGGING,
    "report_to": _LOGGING,
    "wandb_project": _LOGGING,
    "deepspeed": _absent("a run uses one device"),
    "fsdp": _absent("a run uses one device"),
    "lora_plus": _here("train.loraplus_lr_ratio"),
    "loraplus_lr_embedding": _absent("embeddings are trained at train.lr"),
}
"""Keys of TRL, transformers, PEFT, Axolotl, LLaMA-Factory and torchtune, by their last part."""


def translated(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's nested plain data with old names replaced by current ones."""
    new = {
        name: dict(cast("Mapping[str, Any]", part)) if isinstance(part, Mapping) else part
        for name, part in fields.items()
    }
    for old, today in RENAMED.items():
        section, _, key = old.partition(".")
        part: Any = new.get(section)
        if isinstance(part, dict) and key in part:
            value = cast("dict[str, Any]", part).pop(key)
            cast("dict[str, Any]", part).setdefault(today.partition(".")[2], value)
    for dotted, values in RENAMED_VALUES.items():
        section, _, key = dotted.rpartition(".")
        part = new.get(section) if section else new
        if isinstance(part, dict):
            options = cast("dict[str, Any]", part)
            value = options.get(key)
            if isinstance(value, str) and value in values:
                options[key] = values[value]
    return new


def current_task(name: str) -> str:
    """Return the name of today for a task, by any name that it had.

    Unlike other renamed values, this one is accepted in a user's own recipe as well: `causal-lm` is
    what other programs call the same task.
    """
    return RENAMED_VALUES["task"].get(name, name)


def answer(path: str) -> str | None:
    """Return a clause that names the counterpart of an unknown key, or None."""
    last = path.rpartition(".")[2]
    if path in RENAMED:
        return f"{path} is now {RENAMED[path]}"
    if last in ELSEWHERE:
        found = ELSEWHERE[last]
        if not found.keys:
            return f"unknown key {path!r}: Etude has none; {found.note}"
        note = f" ({found.note})" if found.note else ""
        return f"unknown key {path!r}: in Etude it is {' and '.join(found.keys)}{note}"
    moved = [today for old, today in RENAMED.items() if old.rpartition(".")[2] == last]
    return f"unknown key {path!r}: in Etude it is {moved[0]}" if moved else None


def renamed_value(path: str, value: Any) -> str | None:
    """Return a clause that names Etude's value for an old or another program's one, or None."""
    if not isinstance(value, str):
        return None
    if today := RENAMED_VALUES.get(path, {}).get(value):
        return f"{path}: {value} is now {path}: {today}"
    here = VALUES_ELSEWHERE.get(path, {}).get(value)
    return f"{path}: {value} is in Etude {path}: {here}" if here else None
