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

    lr_scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after warm-up."""

    warmup_ratio: Fraction = 0.05
    """Fraction of the steps used for linear warm-up."""

    min_lr_ratio: Fraction = 0.1
    """Final learning rate, as a fraction of the peak (cosine, linear)."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay; not applied to biases, norms, DoRA's magnitudes and IA³'s vectors."""

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
        return self
