"""The sections of a recipe: what each part of a run is given, as typed and checked data.

Every key has its meaning written under it; `etude recipe keys` and docs/reference/recipe.md print
the same words.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values are checked, then frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FactorSpec(Section):
    """Quantised factors: ΔW ≈ Û V̂ᵀ with x̂ = round(s·x)/s, clipped to the range of the bits."""

    bits: Literal[2, 3, 4, 5, 6, 7, 8] | None = None
    """Bits of a number of U and V. None: they stay float32."""

    when: Literal["after", "training"] = "training"
    """`after`: rounded once, when they are saved (PTQ). `training`: rounded in every forward
    pass, with a straight-through gradient (QAT)."""

    scale: Literal["tensor", "row", "block"] = "row"
    """What shares one scale s: a whole factor, one of its r rank vectors, or `block` numbers."""

    block: Literal[32, 64, 128, 256] = 64
    """Numbers that share a scale (`scale: block` only)."""


class AdaLoraSpec(Section):
    """Rank allocation of AdaLoRA (Zhang et al. 2023): start above the rank, prune down to it."""

    initial_rank: Annotated[int, Field(ge=1)] | None = None
    """Rank of every module at the start. None: one and a half times `adapter.rank`."""

    warmup: Fraction = 0.1
    """Share of the steps before anything is pruned."""

    settle: Fraction = 0.3
    """Share of the steps, at the end, in which the ranks stay as they are."""

    every: Annotated[int, Field(ge=1)] = 1
    """Optimiser steps between two prunings."""

    beta1: Fraction = 0.85
    """Smoothing of the sensitivities."""

    beta2: Fraction = 0.85
    """Smoothing of their uncertainty."""

    orthogonality: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the penalty ‖PᵀP − I‖² + ‖QQᵀ − I‖² in the loss."""


class AdapterSpec(Section):
    """Which weights are trained, and how they are parametrised."""

    kind: Literal["lora", "dora", "vera", "adalora", "none"] = "lora"
    """`lora`: ΔW = U Vᵀ on the target modules. `dora`: direction by LoRA, magnitude trained apart.
    `vera`: U and V random, frozen and shared, two vectors trained. `adalora`: ΔW = P Λ Q, the rank
    moved to where it matters. `none`: full fine-tuning, every weight trained."""

    rank: Annotated[int, Field(ge=1)] = 16
    """r, the number of columns of U and V."""

    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The update is scaled by alpha / rank."""

    rslora: bool = False
    """Scale by alpha / √rank instead, so that large ranks learn as fast (Kalajdzievski 2023)."""

    dropout: Fraction = 0.0
    """Dropout on the adapter's input, in training only."""

    targets: str | list[str] = "all-linear"
    """`all-linear` (every Linear but the output head), module names, or patterns (`*.mlp.*`)."""

    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Another rank for some modules, by name or pattern: `{"*.mlp.*": 32}`. The last that
    matches counts."""

    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Another alpha for some modules, likewise."""

    start: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq"] = "default"
    """First values of the factors. `default`: A uniform, B zero. `gaussian`: A normal, B zero.
    `orthogonal`: neither zero, their product zero. `pissa`: the base's principal directions, taken
    off it (Meng et al. 2024). `olora`: the same by QR (Büyükakyüz 2024). `loftq`: what quantising
    the base lost (Li et al. 2023)."""

    loftq_iterations: Annotated[int, Field(ge=1, le=20)] = 1
    """Rounds of quantising and factorising (`start: loftq`)."""

    svd_iterations: Annotated[int, Field(ge=1)] | None = 16
    """Iterations of a randomised SVD (`pissa`, `loftq`). None: the exact SVD, slower."""

    modules_to_save: list[str] = []
    """Modules trained whole and saved with the adapter, by name: a head, an embedding."""

    factors: FactorSpec = FactorSpec()
    """Quantised factors."""

    adalora: AdaLoraSpec = AdaLoraSpec()
    """Rank allocation (`kind: adalora`)."""

    vera_initial: Annotated[float, Field(gt=0)] = 0.1
    """First value of VeRA's vector d (Kopiczko et al. 2024)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind != "lora" and self.start != "default":
            raise ValueError(f"adapter.start: {self.start} is for adapter.kind: lora")
        if self.kind not in ("lora", "dora") and self.factors.bits is not None:
            raise ValueError("adapter.factors.bits is for adapter.kind: lora or dora")
        if self.start in ("pissa", "olora", "loftq") and self.factors.bits is not None:
            raise ValueError(
                f"adapter.start: {self.start} may change the base, whose change is kept in full; "
                "it does not go with adapter.factors.bits"
            )
        if self.kind == "vera" and (self.rank_pattern or self.alpha_pattern):
            raise ValueError(
                "VeRA's modules share their factors: rank_pattern and alpha_pattern do not apply"
            )
        if self.adalora.warmup + self.adalora.settle >= 1:
            raise ValueError("adapter.adalora: warmup and settle leave no step to prune in")
        return self


class QuantSpec(Section):
    """How the frozen base is held in memory."""

    kind: Literal["nf4", "fp4", "int4", "int8", "native", "none"] = "nf4"
    """`nf4`: 4-bit NormalFloat codes (QLoRA). `fp4`: 4-bit floating point. `int4`: uniform, 4 bits.
    `int8`: uniform, 8 bits, a scale a row. `native`: the blocks of the GGUF file, or the 4-bit
    codes of the checkpoint, as they are on disk. `none`: decoded weights."""

    block: Literal[32, 64, 128, 256, 512, 1024, 2048, 4096] = 64
    """Weights that share one scale (`nf4`, `fp4`, `int4`)."""

    double: bool = True
    """Quantise the scales too, to 8 bits, 256 of them sharing one scale (`nf4`, `fp4`, `int4`)."""

    compute: Literal["decoded", "int8"] = "decoded"
    """Products with the base. `decoded`: its weights as numbers. `int8` (kind `int8` only): 8-bit
    integers on both sides, activations and gradients rounded row by row: faster, less exact."""


class ModelSpec(Section):
    """The base model."""

    id: str = "smollm2-135m"
    """An alias (`etude models list`), a hub id, a folder, or a `.gguf` file."""

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the forward pass. `auto`: bfloat16 where the processor has it natively."""


class DataSpec(Section):
    """What the model learns from."""

    kind: Literal["files", "hub", "docstrings"] = "files"
    """`files`: JSONL, CSV or Parquet. `hub`: a data set of the Hugging Face hub.
    `docstrings`: (function source, summary line) pairs from installed Python packages."""

    train: str | None = None
    """Path of the training file, or the hub's id of the data set."""

    eval: str | None = None
    """Path of the evaluation file. None: `eval_fraction` of the training file is held out."""

    eval_fraction: Fraction = 0.05
    """Share of the rows held out where no evaluation file is named."""

    train_split: str = "train"
    """Split to train on (`hub` only)."""

    eval_split: str | None = None
    """Split to evaluate on (`hub` only). None: `eval_fraction` is held out."""

    config: str | None = None
    """Configuration of the data set (`hub` only)."""

    packages: list[str] = []
    """`docstrings` only: names of installed packages, or folders. Empty: all that is installed."""

    eval_packages: list[str] = []
    """`docstrings` only: packages held out of training and used to evaluate."""

    format: Literal[
        "auto",
        "messages",
        "prompt_completion",
        "text",
        "sharegpt",
        "alpaca",
        "preference",
        "judged",
    ] = "auto"
    """How a row is read. `auto`: from its columns. `messages`: a list of {role, content}, tools
    and their calls too. `sharegpt`: a list of {from, value}. `alpaca`: instruction, input, output.
    `preference`: a prompt with a chosen and a rejected answer. `judged`: a prompt, an answer, and
    whether it is wanted (KTO)."""

    prompt: str = "prompt"
    """Column, or template with {columns}, of the prompt."""

    completion: str = "completion"
    """Column, or template with {columns}, of the answer."""

    text: str = "text"
    """Column of plain text."""

    chosen: str = "chosen"
    """Column of the better answer, or of the conversation that ends in it (`preference`)."""

    rejected: str = "rejected"
    """Column of the worse one (`preference`)."""

    label: str = "label"
    """Column that says whether the answer is wanted (`judged`)."""

    tools: str = "tools"
    """Column of the tools that the model may call, a list of JSON schemas (`messages`)."""

    trained_turns: Literal["all", "last"] = "all"
    """Which of a conversation's answers are trained."""

    reasoning: Literal["keep", "drop"] = "keep"
    """Reasoning inside answers (`<think>...</think>`): trained with them, or taken out."""

    system: str | None = None
    """System message put before every conversation that has none."""

    max_train: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many training samples, drawn by the seed."""

    max_eval: Annotated[int, Field(ge=1)] | None = None
    """Use at most this many evaluation samples, drawn by the seed."""

    max_length: Annotated[int, Field(ge=8)] = 512
    """Tokens a sample may have."""

    too_long: Literal["drop", "cut_prompt", "error"] = "drop"
    """A sample over `max_length`: leave it out and count it, cut its prompt from the left (never
    the answer), or stop."""

    no_trained_tokens: Literal["error", "drop"] = "error"
    """A sample without a trained token: stop and name it, or leave it out and count it."""

    packing: bool = True
    """Lay samples end to end in one row, each attending to itself only, positions restarted."""


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

    lr_ratio_b: Annotated[float, Field(gt=0)] = 1.0
    """LoRA+: learning rate of the factor U (lora_B) over that of V (Hayou et al. 2024)."""

    optimizer: Literal["adamw", "adamw8bit", "lion", "adafactor"] = "adamw"
    """`adamw8bit` keeps AdamW's moments in 8 bits, blocks of 256 sharing a scale. `lion` steps by
    the sign of a momentum and wants a 3 to 10 times smaller `lr` (Chen et al. 2023). `adafactor`
    keeps a second moment a row and a column (Shazeer and Stern 2018)."""

    paged: bool = False
    """Keep the optimiser's state out of the way: in a memory-mapped file (CPU) or in pinned host
    memory (CUDA). For AdamW, in 32 or 8 bits."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after warm-up."""

    warmup: Fraction = 0.05
    """Share of the steps in which the learning rate rises from zero."""

    final_lr: Fraction = 0.1
    """Learning rate at the end, as a share of the peak (cosine, linear)."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay; not of biases, norms and DoRA's magnitudes."""

    beta1: Fraction | None = None
    """AdamW's decay of the first moment, Lion's share of the momentum in a step. None: 0.9."""

    beta2: Fraction | None = None
    """AdamW's decay of the second moment (None: 0.999), Lion's of the momentum (None: 0.99)."""

    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest L2 norm of the gradient over all trained weights."""

    checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""

    eval_every: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps between evaluations. None: before and after training only."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a better loss."""

    save_every: Annotated[int, Field(ge=1)] = 20
    """Optimiser steps between checkpoints: what a killed run loses at most."""

    seed: int = 0
    """Seeds initialisation, order and dropout."""

    threads: Annotated[int, Field(ge=1)] | None = None
    """Processor threads. None: the physical cores that this process may use."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.paged and self.optimizer not in ("adamw", "adamw8bit"):
            raise ValueError(
                f"train.paged is for train.optimizer: adamw or adamw8bit; {self.optimizer} keeps "
                "its state in memory"
            )
        if self.optimizer == "adafactor" and (self.beta1 is not None or self.beta2 is not None):
            raise ValueError(
                "train.beta1 and train.beta2 do not apply to train.optimizer: adafactor, which has "
                "no first moment and derives the second's decay from the step; leave them out"
            )
        return self


class ObjectiveSpec(Section):
    """What is minimised."""

    kind: Literal["auto", "completion", "dpo", "orpo", "kto"] = "auto"
    """`completion`: cross-entropy of the answers. `dpo`, `orpo`: preference pairs (Rafailov et al.
    2023; Hong et al. 2024). `kto`: judged answers (Ethayarajh et al. 2024). `auto`: `dpo` for
    pairs, `kto` for judged answers, else `completion`."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the pull to the base model (DPO, KTO)."""

    odds_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight λ of ORPO's odds-ratio term."""

    wanted_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of wanted answers (KTO)."""

    unwanted_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of unwanted answers (KTO)."""

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of pairs taken to be labelled the wrong way round (DPO)."""


class EvalSpec(Section):
    """What is measured before and after training."""

    generate: Annotated[int, Field(ge=0)] = 64
    """Evaluation samples for which an answer is generated and scored by ROUGE-L."""

    show: Annotated[int, Field(ge=0)] = 3
    """Samples printed before and after."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """Longest generated answer."""

    batch_samples: Annotated[int, Field(ge=1)] = 16
    """Answers generated at a time."""
