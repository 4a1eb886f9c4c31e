"""`data`: what the model learns from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from etude.tuning.config.sections.base import Fraction, Section


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
        "unpaired_preference",
    ] = "auto"
    """How a row is read. `auto`: from its columns. `messages`: a list of {role, content}, tools
    and their calls too. `sharegpt`: a list of {from, value}. `alpaca`: instruction, input, output.
    `preference`: a prompt with a chosen and a rejected answer. `unpaired_preference`: a prompt, an
    answer, and whether it is desirable (KTO)."""

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
    """Column that says whether the answer is desirable (`unpaired_preference`)."""

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
