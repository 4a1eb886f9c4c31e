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
"""Keys that do not apply to an optimiser, each with what the optimiser does instead."""


class TrainSpec(Section):
    """The training loop."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the training data."""

    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimiser steps."""

    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Plan the schedule to end within this many minutes of training, by the measured speed of the
    first steps. A run planned by time is not the same run on another machine."""

    batch_samples: Annotated[int, Field(ge=1)] = 16
    """Samples an optimiser step."""

    micro_tokens: Annotated[int, Field(ge=16)] = 768
    """Tokens of one forward pass; a step accumulates as many as its samples need."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate, per optimiser step."""

    loraplus_lr_ratio: Annotated[float, Field(gt=0)] = 1.0
    """LoRA+: learning rate of the factor U (lora_B) over that of V (Hayou et al. 2024)."""

    optimizer: Literal["adamw", "adamw8bit", "lion", "adafactor"] = "adamw"
    """`adamw8bit` keeps AdamW's moments in 8 bits, blocks of 256 sharing a scale. `lion` steps by
    the sign of a momentum and wants a 3 to 10 times smaller `lr` (Chen et al. 2023). `adafactor`
    keeps a second moment a row and a column (Shazeer and Stern 2018)."""

    paged: bool = False
    """Keep the optimiser's state out of the way: in a memory-mapped file (CPU) or in pinned host
    memory (CUDA). For AdamW, in 32 or 8 bits."""

    lr_scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after warm-up."""

    warmup_ratio: Fraction = 0.05
    """Share of the steps in which the learning rate rises from zero."""

    min_lr_ratio: Fraction = 0.1
    """Learning rate at the end, as a share of the peak (cosine, linear)."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay; not of biases, norms, DoRA's magnitudes and IA³'s vectors."""

    beta1: Fraction | None = None
    """AdamW's decay of the first moment, Lion's share of the momentum in a step. None: 0.9."""

    beta2: Fraction | None = None
    """AdamW's decay of the second moment (None: 0.999), Lion's of the momentum (None: 0.99)."""

    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest L2 norm of the gradient over all trained weights."""

    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""

    eval_every: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps between evaluations. None: before and after training only."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Early stopping: stop after this many evaluations without a better loss."""

    save_every: Annotated[int, Field(ge=1)] = 20
    """Optimiser steps between checkpoints: what a killed run loses at most."""

    seed: int = 0
    """Seeds initialisation, order and dropout."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """Processor threads. None: the physical cores that this process may use."""

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
                f"{instead[refused[0]]}; leave {'them' if len(refused) > 1 else 'it'} out"
            )
        return self
