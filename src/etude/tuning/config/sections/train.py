"""`train`: the training loop."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from etude.tuning.config.sections.base import Fraction, Section

_NO_BETAS = "has no first moment and derives the second's decay from the step"

NOT_TAKEN: dict[str, dict[str, str]] = {
    "lion": {"paged": "keeps its state in memory"},
    "adafactor": {"paged": "keeps its state in memory", "beta1": _NO_BETAS, "beta2": _NO_BETAS},
}
"""Keys that do not apply to an optimiser, each with the optimiser's behaviour."""


ONLY_WITH: dict[str, str] = {
    "lr_cycles": "cosine_with_restarts",
    "lr_power": "polynomial",
    "lr_start_ratio": "one_cycle",
    "lr_decay_ratio": "warmup_stable_decay",
    "lr_decay_steps": "warmup_stable_decay",
    "lr_decay_shape": "warmup_stable_decay",
    "plateau_factor": "reduce_lr_on_plateau",
    "plateau_patience": "reduce_lr_on_plateau",
    "plateau_threshold": "reduce_lr_on_plateau",
    "plateau_cooldown": "reduce_lr_on_plateau",
}
"""Keys of one schedule, each with the schedule."""


class TrainSpec(Section):
    """The training loop."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the training data."""

    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of optimiser steps."""

    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Plan the schedule to end within this many minutes of training, by the measured speed of the
    first steps. Such a run is not reproducible on another machine."""

    batch_samples: Annotated[int, Field(ge=1)] = 16
    """Samples per optimiser step."""

    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """Order of an epoch. `shuffle`: every sample once. `balanced`: as many samples, every class as
    often as any other: rare ones repeated, frequent ones in part (one class a row)."""

    micro_tokens: Annotated[int, Field(ge=16)] = 768
    """Maximum number of tokens in a forward pass; a step accumulates gradients over its passes."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""

    loraplus_lr_ratio: Annotated[float, Field(gt=0)] = 1.0
    """LoRA+: ratio of the learning rates of U (lora_B) and V (lora_A) (Hayou et al. 2024)."""

    head_lr_ratio: Annotated[float, Field(gt=0)] = 1.0
    """Ratio of the learning rates of a task's new head, which begins at random, and of the other
    weights."""

    optimizer: Literal["adamw", "adamw8bit", "lion", "adafactor"] = "adamw"
    """`adamw8bit` stores AdamW's moments in 8 bits, with one scale per block of 256. `lion` moves
    by the sign of a momentum and needs a 3 to 10 times smaller `lr` (Chen et al. 2023). `adafactor`
    factors the second moment by row and column (Shazeer and Stern 2018)."""

    paged: bool = False
    """Page the optimiser's state: into a memory-mapped file (CPU) or pinned host memory (CUDA).
    For `adamw` and `adamw8bit`."""

    lr_scheduler: Literal[
        "cosine",
        "linear",
        "constant",
        "cosine_with_restarts",
        "inverse_sqrt",
        "polynomial",
        "one_cycle",
        "warmup_stable_decay",
        "reduce_lr_on_plateau",
    ] = "cosine"
    """Shape of the learning rate after warm-up (docs/optimisation.md). `reduce_lr_on_plateau`:
    lowered when evaluations (`eval_every`) no longer improve by `eval.best_metric`."""

    warmup_ratio: Fraction = 0.05
    """Fraction of the steps used for warm-up: linear, or the rise of `one_cycle`."""

    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Optimiser steps of warm-up. None: `warmup_ratio` of them."""

    min_lr_ratio: Fraction = 0.1
    """Final learning rate, as a fraction of the peak; for `reduce_lr_on_plateau` the lowest. Not of
    `constant` and `inverse_sqrt`."""

    lr_cycles: Annotated[int, Field(ge=1)] = 2
    """Cosine decays, each from the peak (`cosine_with_restarts`)."""

    lr_power: Annotated[float, Field(gt=0)] = 2.0
    """Exponent of `polynomial`; 1 is `linear`."""

    lr_start_ratio: Annotated[float, Field(gt=0, le=1)] = 0.04
    """Learning rate of the first step, as a fraction of the peak (`one_cycle`)."""

    lr_decay_ratio: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Fraction of the steps, at the end, in which `warmup_stable_decay` decays."""

    lr_decay_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps of that decay. None: `lr_decay_ratio` of them."""

    lr_decay_shape: Literal["1-sqrt", "linear", "cosine"] = "1-sqrt"
    """Shape of that decay; 1 − √progress is the best of those that Hägele et al. (2024) compare."""

    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor of the learning rate at a plateau (`reduce_lr_on_plateau`)."""

    plateau_patience: Annotated[int, Field(ge=0)] = 1
    """Evaluations in a row without improvement that are tolerated before it."""

    plateau_threshold: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    """Smallest improvement that counts, as a fraction of the best evaluation."""

    plateau_cooldown: Annotated[int, Field(ge=0)] = 0
    """Evaluations after a reduction during which there is no other."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay λ of each trained weight, so of the factors U and V one by one; not
    applied to biases, norms, DoRA's magnitudes and IA³'s vectors. Of factors it lowers ΔW's
    singular values by a constant."""

    delta_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled decay λ of the change ΔW = U Vᵀ itself: the L2 penalty of full fine-tuning, which
    lowers ΔW's singular values in proportion (`adapter.kind: lora`; docs/optimisation.md)."""

    neftune_alpha: Annotated[float, Field(gt=0)] | None = None
    """NEFTune: uniform noise of ±α / √(tokens × width) on the input embeddings while training (Jain
    et al. 2023; 5 to 15 are common), by the sample's own length. None: no noise."""

    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Exponential moving average of the trained weights, which is evaluated and saved instead of
    them: decay per step, 0.99 or 0.999 in long runs. None: the weights themselves."""

    gradient_noise: bool = False
    """Measure the gradient noise scale (McCandlish et al. 2018) from the micro-batches of a step,
    and advise on `batch_samples`. Needs two passes a step (`micro_tokens`) and memory for one more
    gradient."""

    beta1: Fraction | None = None
    """β₁: decay of the first moment (AdamW), interpolation of the update (Lion). None: 0.9."""

    beta2: Fraction | None = None
    """β₂: decay of AdamW's second moment (None: 0.999) or of Lion's momentum (None: 0.99)."""

    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradient clipping: maximum L2 norm over all trained weights."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them, to save memory."""

    eval_every: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps between evaluations. None: before and after training only."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Early stopping: stop after this many evaluations without improvement."""

    save_every: Annotated[int, Field(ge=1)] = 20
    """Optimiser steps between checkpoints."""

    seed: int = 0
    """Seed of initialisation, data order and dropout."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads. None: the physical cores available to this process."""

    trackers: list[Literal["tensorboard"]] = []
    """Other programs that are shown the figures of the run while it trains. `tensorboard`: event
    files in the run's folder (extra `tensorboard`). None is needed: metrics.jsonl and the report
    hold all of it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = {"paged": self.paged, "beta1": self.beta1, "beta2": self.beta2}
        chosen = [
            option for option, value in given.items() if value is not None and value is not False
        ]
        instead = NOT_TAKEN.get(self.optimizer, {})
        refused = [option for option in chosen if option in instead]
        if refused:
            keys = " and ".join(f"train.{option}" for option in refused)
            verb = "do" if len(refused) > 1 else "does"
            raise ValueError(
                f"{keys} {verb} not apply to train.optimizer: {self.optimizer}, which "
                f"{instead[refused[0]]}; omit {'them' if len(refused) > 1 else 'it'}"
            )
        self._check_schedule()
        return self

    def _check_schedule(self) -> None:
        """Refuse keys of another schedule, and a schedule that cannot run."""
        for key, owner in ONLY_WITH.items():
            changed = getattr(self, key) != type(self).model_fields[key].default
            if changed and self.lr_scheduler != owner:
                raise ValueError(
                    f"train.{key} is for train.lr_scheduler: {owner}, not {self.lr_scheduler}; "
                    "omit it, or change the schedule"
                )
        if self.lr_scheduler == "reduce_lr_on_plateau" and self.eval_every is None:
            raise ValueError("train.lr_scheduler: reduce_lr_on_plateau needs train.eval_every")
        if (
            self.lr_scheduler == "warmup_stable_decay"
            and self.warmup_steps is None
            and self.lr_decay_steps is None
            and self.warmup_ratio + self.lr_decay_ratio > 1
        ):
            raise ValueError(
                f"train.warmup_ratio {self.warmup_ratio:g} and train.lr_decay_ratio "
                f"{self.lr_decay_ratio:g} are together more than the run; lower one of them"
            )
