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
    """Column of the prompt, or template with {columns}."""

    completion: str = "completion"
    """Column of the answer, or template with {columns}."""

    text: str = "text"
    """Column of plain text, or of the text to classify (there also a template with {columns})."""

    text_pair: str | None = None
    """Column of the second text of a pair, or template with {columns}: hypothesis, document (text
    classification)."""

    chosen: str = "chosen"
    """Column of the chosen answer, or of the conversation that ends in it (`preference`)."""

    rejected: str = "rejected"
    """Column of the rejected answer or conversation (`preference`)."""

    label: str = "label"
    """Column of the label: class, or whether the answer is desirable (`unpaired_preference`)."""

    label_kind: Literal["auto", "class", "multi_label", "number"] = "auto"
    """What a label is (text classification). `class`: one class a row. `multi_label`: any number of
    labels a row. `number`: a quantity. `auto`: `multi_label` for lists, `label_columns` and
    `label_separator`; `number` if all labels are numbers, one of them with a fraction; else
    `class`, for whole numbers too."""

    label_columns: list[str] = []
    """Columns of 0 and 1, one for each label (`multi_label`), instead of `label`."""

    label_separator: str | None = None
    """What separates several labels in one text (`multi_label`): `;` for `late; damaged`."""

    tools: str = "tools"
    """Column of the available tools, a list of JSON schemas (`messages`)."""

    trained_turns: Literal["all", "last"] = "all"
    """Answers of a conversation to train on."""

    reasoning: Literal["keep", "drop"] = "keep"
    """Reasoning inside answers (`<think>...</think>`): trained, or removed."""

    system: str | None = None
    """System message of conversations that have none."""

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

    packing: bool = True
    """Pack samples end to end in one row, each attending to itself only, with its own positions."""
