"""`data`: training and evaluation data."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from etude.tuning.config.sections.base import Fraction, Section
from etude.tuning.config.sections.named_files import Files, NamedFile, listed, place

BM25 = "bm25"
"""The first stage of a search that is no model."""


class ReplaySpec(Section):
    """General text mixed into the documents of a domain (`language-modeling`)."""

    file: str | None = None
    """File or folder of general text, read as `data.train`. Null: none is mixed in."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training tokens that are of it; rows are drawn at random by the seed."""


class FoldSpec(Section):
    """Part of the training data that is held out, of several equal ones."""

    of: Annotated[int, Field(ge=2)] | None = None
    """Hold out one of so many equal parts of the training data instead of `eval_fraction`, each
    with the same share of every class. `etude tune --folds` makes a run for each."""

    number: Annotated[int, Field(ge=1)] = 1
    """Which of the parts is held out, from 1."""

    repeat: Annotated[int, Field(ge=1)] = 1
    """Which of several divisions it is of, from 1; each has its own seed."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.of is not None and self.number > self.of:
            raise ValueError(f"data.fold.number {self.number} is more than data.fold.of {self.of}")
        return self


class DataSpec(Section):
    """Training and evaluation data."""

    kind: Literal["files", "hub", "docstrings"] = "files"
    """`files`: JSONL, JSON, CSV, TSV, Parquet, CoNLL (a word and its tag a line) or text,
    compressed or not. `hub`: a data set of the Hugging Face hub. `docstrings`: (function source,
    summary line) pairs from installed Python packages."""

    train: Files | None = None
    """Path of the training file (`-`: standard input), or hub id of the data set. Several files: a
    list of paths, or of {path, weight}: weights are the files' shares of the training samples,
    drawn once by the seed, none twice. {prompts, completions}: two text files of aligned lines. For
    `language-modeling` also a text file (.txt, .md, .rst, .html), which is one document, or a
    folder of such files; for `image-classification` also a folder of folders of images, each named
    by its class."""

    eval: Files | None = None
    """Path of the evaluation file, or a list as for `train`, without weights. None: hold out
    `eval_fraction` of the training data."""

    test: Files | None = None
    """Path of the test file, or a list as for `eval`. It is read neither in tuning nor in a search:
    `etude eval RUN --final` opens it, once, and the report says when."""

    encoding: str | None = None
    """Encoding of text files, such as `cp1252`. None: UTF-8, or UTF-16 by its byte order mark."""

    separator: str | None = None
    """Character between the cells of a CSV file; `tab` is one. None: told by the header (comma,
    semicolon, tab, bar)."""

    eval_fraction: Fraction = 0.05
    """Fraction of the rows to hold out if there is no evaluation file."""

    fold: FoldSpec = FoldSpec()
    """Part of the training data that is held out, of several equal ones."""

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
        "dolly",
        "input_output",
        "gemini",
    ] = "auto"
    """Row format. `auto`: detected from the columns. `messages`: a list of {role, content}, with
    tool calls. `sharegpt`: a list of {from, value}. `alpaca`: instruction, input, output.
    `dolly`: instruction, context, response. `input_output`: input, output. `gemini`: contents, a
    list of {role, parts}. `preference`: a prompt with a chosen and a rejected answer.
    `unpaired_preference`: a prompt, an answer, and whether it is desirable (KTO)."""

    prompt: str = "prompt"
    """Column of the prompt, a text or a list of {role, content}; a path into a column, as in
    `question.text`; or a template with {columns}."""

    completion: str = "completion"
    """Column of the answer, as for `prompt`. Answers in the prompt are context. A column may hold a
    list of answers: each is a reference at evaluation, and `data.references` says which are
    trained."""

    references: Literal["all", "one"] = "all"
    """Of a row with a list of answers: train on each of them, or on one, drawn by the seed."""

    text: str = "text"
    """Column of plain text, or of the text to classify (there also a template with {columns})."""

    image: str = "image"
    """Column of the path of an image, relative to the file that names it
    (`image-classification`)."""

    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Height and width of the images that the model gets, in pixels (`image-classification`). None:
    the model's own; a vision transformer takes no other."""

    positive: str = "positive"
    """Column of the text that belongs with `data.text` (`task: embedding`, `reranking`). Rows
    without it but with a label have the other texts of their class as positives."""

    negative: str = "negative"
    """Column of a text that does not belong with `data.text` (`task: embedding`, `reranking`);
    optional."""

    negatives: Annotated[int, Field(ge=1)] = 4
    """Documents that do not belong with it, for each training query (`task: reranking`): the row's
    own `negative`, hard ones, and random ones of the training rows, drawn once by the seed."""

    hard_negatives: Annotated[int, Field(ge=0)] = 2
    """How many of `negatives` are hard: drawn from the 50 documents that `first_stage` ranks first
    among those that do not belong with the query."""

    candidates: Annotated[int, Field(ge=2)] = 20
    """Documents that `first_stage` passes on for each held-out query (`task: reranking`)."""

    first_stage: str = BM25
    """What finds the documents that are reranked: `bm25`, or an embedding model: an alias, a hub id
    or a folder, whose vectors are means of its tokens' states."""

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

    template_refused: Literal["error", "drop"] = "error"
    """Samples that the chat template refuses, or renders without some of what they say: stop with
    an error, or drop and count them."""

    unsupported_system: Literal["auto", "fold", "error"] = "auto"
    """System messages of a chat template that takes none. `fold`: they come before the user's first
    message, in the same turn. `error`: stop with an error. `auto`: folded where the template
    refuses them, an error where it leaves them out without a word."""

    packing: bool = True
    """Pack samples end to end in one row, each attending to itself only, with its own positions. A
    model for which that is not exact has a row for each sample; `etude tune` says why."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                codecs.lookup(value)
            except LookupError:
                raise ValueError(
                    f"data.encoding: Python knows no encoding {value!r}; common ones are utf-8, "
                    "utf-16, cp1252, latin-1"
                ) from None
        return value

    @field_validator("separator")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
        if value is not None and (len(value) != 1 or value in '"\r\n'):
            raise ValueError(f"data.separator must be one character, such as ';', got {value!r}")
        return value

    @model_validator(mode="after")
    def _weighted(self) -> Self:
        weights = [file.weight for file in self.train_files]
        if any(weights) and not all(weights):
            raise ValueError("data.train: give every file a weight, or none")
        if any(file.weight for file in self.eval_files):
            raise ValueError("data.eval: weights are for data.train; every evaluation row is used")
        if any(file.weight for file in self.test_files):
            raise ValueError("data.test: weights are for data.train; every test row is used")
        return self

    @model_validator(mode="after")
    def _folds_are_of_train(self) -> Self:
        if self.fold.of is None:
            return self
        if self.eval is not None or self.eval_split is not None:
            raise ValueError(
                "data.fold holds out a part of data.train; omit data.eval (--set data.eval=null), "
                "or name it as data.test"
            )
        if self.kind == "docstrings":
            raise ValueError(
                "data.fold: docstrings are held out by whole packages (data.eval_packages); folds "
                "are of files or a data set of the hub"
            )
        return self

    @model_validator(mode="after")
    def _test_is_apart(self) -> Self:
        tested = {place(path) for file in self.test_files for path in file.paths}
        for key, files in (("data.train", self.train_files), ("data.eval", self.eval_files)):
            for path in (path for file in files for path in file.paths):
                if place(path) in tested:
                    raise ValueError(
                        f"data.test: {path} is {key} too; a test set is of rows that neither "
                        "training nor the choice of a recipe has seen"
                    )
        return self

    @property
    def train_files(self) -> list[NamedFile]:
        """The training files; empty if none is named."""
        return listed(self.train)

    @property
    def eval_files(self) -> list[NamedFile]:
        """The evaluation files; empty if none is named."""
        return listed(self.eval)

    @property
    def test_files(self) -> list[NamedFile]:
        """The test files; empty if none is named."""
        return listed(self.test)

    @property
    def weighted(self) -> bool:
        """Whether training samples are drawn by the weights of their files."""
        return any(file.weight is not None for file in self.train_files)

    def every_row(self) -> DataSpec:
        """Return the same data without draws: all rows, of all files."""
        train = self.train
        if isinstance(train, list):
            train = [file.model_copy(update={"weight": None}) for file in train]
        return self.model_copy(update={"train": train, "max_train": None, "max_eval": None})
