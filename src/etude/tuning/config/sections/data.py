"""`data`: training and evaluation data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from etude.tuning.config.sections.base import Fraction, Section


class ReplaySpec(Section):
    """General text mixed into the documents of a domain (`language-modeling`)."""

    file: str | None = None
    """File or folder of general text, read as `data.train`. Null: none is mixed in."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training tokens that are of it; rows are drawn at random by the seed."""


class DataSpec(Section):
    """Training and evaluation data."""

    kind: Literal["files", "hub", "docstrings"] = "files"
    """`files`: JSONL, CSV, Parquet, or CoNLL (a word and its tag a line). `hub`: a data set of the
    Hugging Face hub. `docstrings`: (function source, summary line) pairs from installed Python
    packages."""

    train: str | None = None
    """Path of the training file, or hub id of the data set. For `language-modeling` also a text
    file (.txt, .md, .rst, .html), which is one document, or a folder of such files."""

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
    """Column of the answer, or template with {columns}. A column may hold a list of answers: each
    is a reference at evaluation, and `data.references` says which are trained."""

    references: Literal["all", "one"] = "all"
    """Of a row with a list of answers: train on each of them, or on one, drawn by the seed."""

    text: str = "text"
    """Column of plain text."""

    positive: str = "positive"
    """Column of the text that belongs with `data.text` (`task: embedding`). Rows without it but
    with a label have the other texts of their class as positives."""

    negative: str = "negative"
    """Column of a text that does not belong with `data.text` (`task: embedding`); optional."""
    document_start: str | None = None
    """Regular expression of the lines of a text file that begin a new document
    (`language-modeling`): `'^ = [^=]+ = $'` for WikiText. Null: a file is one document."""

    replay: ReplaySpec = ReplaySpec()
    """General text mixed into the documents of a domain (`language-modeling`)."""
    text_pair: str | None = None
    """Column of the second text of a pair, or template with {columns}: hypothesis, document (text
    classification)."""

    chosen: str = "chosen"
    """Column of the chosen answer, or of the conversation that ends in it (`preference`)."""

    rejected: str = "rejected"
    """Column of the rejected answer or conversation (`preference`)."""

    label: str = "label"
    """Column of the label: class, or whether the answer is desirable (`unpaired_preference`)."""

    words: str | None = None
    """Column of the words, a list (`token-classification`). None: `words` or `tokens`."""

    tags: str | None = None
    """Column of the tags, one for each word (`token-classification`). None: `tags`, `ner_tags` or
    `labels`."""

    tag_names: list[str] = []
    """Names of tags that are given as numbers, in order: O, B-PER, I-PER, ... Not needed for data
    sets that name them themselves (`token-classification`)."""

    spans: str | None = None
    """Column of entities in `text`, as [start, end, label] or objects with these keys, in
    characters (`token-classification`). None: `spans`, `entities`, `labels`, `label` or
    `annotations`."""

    tag_scheme: Literal["auto", "BIO", "BIOES"] = "auto"
    """Scheme that tags are converted to for training; the data's own is recognised. `auto`: BIOES
    for data in BIOES or BILOU, else BIO (`token-classification`)."""

    broken_tags: Literal["repair", "error"] = "repair"
    """Sequences that break their scheme, as I- after O: read as conlleval does and counted, or stop
    with an error (`token-classification`)."""

    window_overlap: Annotated[float, Field(ge=0.0, le=0.5)] = 0.25
    """Fraction of a window that it shares with the next, where a sentence has more than
    `max_length` tokens. Each word is trained and scored in the window with most of its context
    (`token-classification`)."""
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
    """Maximum number of training samples (`language-modeling`: documents), drawn at random by the
    seed."""

    max_eval: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of evaluation samples (`language-modeling`: documents), drawn at random by the
    seed."""

    max_length: Annotated[int, Field(ge=8)] = 512
    """Maximum number of tokens in a sample; `language-modeling`: in a row, of which long documents
    take as many as they need."""

    too_long: Literal["drop", "cut_prompt", "error"] = "drop"
    """Samples over `max_length`: drop and count them, cut their prompt from the left (never the
    answer), or stop with an error. `token-classification` drops none: it reads long sentences in
    windows."""

    no_trained_tokens: Literal["error", "drop"] = "error"
    """Samples without a trained token: stop with an error, or drop and count them."""

    packing: bool = True
    """Pack samples end to end in one row, each attending to itself only, with its own positions. A
    classifier whose outputs would change keeps padded rows, and a note says so."""
