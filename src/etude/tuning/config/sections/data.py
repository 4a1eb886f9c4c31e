"""`data`: training and evaluation data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from etude.tuning.config.sections.base import Fraction, Section


class DataSpec(Section):
    """Training and evaluation data."""

    kind: Literal["files", "hub", "docstrings"] = "files"
    """`files`: JSONL, CSV or Parquet. `hub`: a data set of the Hugging Face hub.
    `docstrings`: (function source, summary line) pairs from installed Python packages."""

    train: str | None = None
    """Path of the training file, or hub id of the data set."""

    eval: str | None = None
    """Path of the evaluation file. None: hold out `eval_fraction` of the training file."""

    eval_fraction: Fraction = 0.05
    """Fraction of the rows to hold out if there is no evaluation file."""

    train_split: str = "train"
    """Training split (`hub` only)."""

    eval_split: str | None = None
    """Evaluation split (`hub` only). None: hold out `eval_fraction`."""

    config: str | None = None
    """Configuration of the data set (`hub` only)."""

    packages: list[str] = []
    """`docstrings` only: names of installed packages, or folders. Empty: all installed packages."""

    eval_packages: list[str] = []
    """`docstrings` only: packages held out for evaluation."""

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
    """Row format. `auto`: detected from the columns. `messages`: a list of {role, content}, with
    tool calls. `sharegpt`: a list of {from, value}. `alpaca`: instruction, input, output.
    `preference`: a prompt with a chosen and a rejected answer. `unpaired_preference`: a prompt, an
    answer, and whether it is desirable (KTO)."""

    prompt: str = "prompt"
    """Column of the prompt, a text or a list of {role, content}; a path into a column, as in
    `question.text`; or a template with {columns}."""

    completion: str = "completion"
    """Column of the answer, as for `prompt`. Answers in the prompt are context."""

    text: str = "text"
    """Column of plain text."""

    chosen: str = "chosen"
    """Column of the chosen answer, or of the conversation that ends in it (`preference`)."""

    rejected: str = "rejected"
    """Column of the rejected answer or conversation (`preference`)."""

    label: str = "label"
    """Column of the label: class, or whether the answer is desirable (`unpaired_preference`)."""

    tools: str = "tools"
    """Column of the available tools, a list of JSON schemas (`messages`)."""

    trained_turns: Literal["all", "last"] = "all"
    """Answers of a conversation to train on. Answers that the data mark as context (`weight: 0`,
    `train: false`, `loss: false`, `masked: true`, `prefix: true`) are never trained."""

    reasoning: Literal["keep", "drop"] = "keep"
    """Reasoning inside answers (`<think>...</think>`): trained, or removed."""

    system: str | None = None
    """System message of conversations that have none."""

    system_column: str | None = "auto"
    """Column of the system message, or template with {columns}. `auto`: `system`, `system_prompt`
    or `system_message`, where the row has one. null: none is read."""

    max_train: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of training samples, drawn at random by the seed."""

    max_eval: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of evaluation samples, drawn at random by the seed."""

    max_length: Annotated[int, Field(ge=8)] = 512
    """Maximum number of tokens in a sample."""

    too_long: Literal["drop", "cut_prompt", "error"] = "drop"
    """Samples over `max_length`: drop and count them, cut their prompt from the left (never the
    answer), or stop with an error."""

    no_trained_tokens: Literal["error", "drop"] = "error"
    """Samples without a trained token: stop with an error, or drop and count them."""

    template_refused: Literal["error", "drop"] = "error"
    """Samples that the chat template refuses, or renders without some of what they say: stop with
    an error, or drop and count them."""

    unsupported_system: Literal["auto", "fold", "error"] = "auto"
    """System messages of a chat template that takes none. `fold`: they come before the user's first
    message, in the same turn. `error`: stop with an error. `auto`: folded where the template
    refuses them, an error where it leaves them out without a word."""

    packing: bool = True
    """Pack samples end to end in one row, each attending to itself only, with its own positions."""
