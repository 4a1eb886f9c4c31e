"""Inputs to predict, read from a file of rows, from a text file or from a stream of lines.

A line is one input, or two texts with a tab between them where the run reads pairs. A line that
begins with `{` is a JSON row when a column of the input is in it; so are all other lines with a `{`
once one was a row, or where only rows can be meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from etude.core.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from etude.tuning.config.recipe import Recipe
    from etude.tuning.data.sources.registry import Row

TEXT_SUFFIXES = (".txt", ".text", "")
"""Files of lines; others are read by the data readers."""

GENERATING = ("chat", "language-modeling")
"""Tasks whose inputs are free text: an object without the column is a prompt."""

Input = str | list[str] | tuple[str, str] | tuple[str, list[str]]
"""A text, the words of a text, a pair of texts, or a query and its documents."""

DOCUMENTS = "documents"
"""Column of the documents to rank, a list (`task: reranking`)."""

Refuse = Callable[[str], None]
"""What is done about an input that cannot be read; gets one line that names it."""


def stop(complaint: str) -> None:
    """Refuse an input by ending everything.

    Raises:
        DataError: with the complaint.
    """
    raise DataError(complaint)


def image_paths(
    source: Iterable[Path] | Iterable[str], recipe: Recipe, column: str | None
) -> Iterator[Path]:
    """Yield the paths of the images to predict.

    Args:
        source: images, folders of images at any depth, files of rows or lines with paths that are
            relative to them; or lines of a stream, each a path.
        recipe: of the run.
        column: of rows: the column with the path; None: the run's.

    Raises:
        DataError: a file of rows cannot be read.
    """
    from etude.tuning.data.columns import field_reader
    from etude.tuning.data.sources.files import read_rows
    from etude.tuning.data.sources.image_folder import image_files
    from etude.tuning.data.sources.registry import READERS, UnreadableRow
    from etude.tuning.images.decode import SUFFIXES

    read = field_reader(column or recipe.data.image, "data.image of the run, or --column")
    for entry in source:
        if isinstance(entry, str) and not entry.strip():
            continue
        path = Path(entry.strip()) if isinstance(entry, str) else entry
        if path.is_dir():
            yield from image_files(path)
        elif path.suffix.lower() in TEXT_SUFFIXES[:2]:
            lines = path.read_text("utf-8").splitlines()
            yield from (path.parent / line.strip() for line in lines if line.strip())
        elif path.suffix.lower() in READERS and path.suffix.lower() not in SUFFIXES:
            for row in read_rows(path):
                if isinstance(row, UnreadableRow):
                    raise DataError(row.message)
                yield path.parent / read(row)
        else:
            yield path


@dataclass
class InputReader:
    """How the inputs of a run are read.

    Args:
        recipe: of the run.
        column: column of the input, or a template of columns; None: the recipe's own.

    Raises:
        DataError: a column is named and the run reads pairs.
    """

    recipe: Recipe
    column: str | None = None
    _of_row: Callable[[Row], Input] | None = field(default=None, init=False)
    """Reads rows; made of the first one."""

    def __post_init__(self) -> None:
        data = self.recipe.data
        if self.column is not None and self.second is not None:
            raise DataError(
                f"--column names one text, and this run {self._verb} pairs: columns "
                f"{data.text!r} and {self.second!r}"
            )

    @property
    def second(self) -> str | None:
        """The column of the second text, where the run reads pairs."""
        data = self.recipe.data
        return data.positive if self.recipe.task == "reranking" else data.text_pair

    @property
    def _verb(self) -> str:
        return "ranks" if self.recipe.task == "reranking" else "classifies"

    def of_file(self, file: Path) -> Iterator[Input]:
        """Yield the inputs of a file.

        Raises:
            DataError: a row cannot be read, or it has no such column.
        """
        from etude.tuning.data.sources.conll import looks_like_conll
        from etude.tuning.data.sources.data_file import DataFile
        from etude.tuning.data.sources.files import read_rows
        from etude.tuning.data.sources.registry import UnreadableRow

        named = DataFile(file)
        if named.suffix in TEXT_SUFFIXES and not file.is_dir():
            tags = self.recipe.task == "token-classification" and self.column is None
            if not (tags and file.is_file() and looks_like_conll(named)):
                yield from _lines_of(file, self)
                return
        for row in read_rows(file):
            if isinstance(row, UnreadableRow):
                raise DataError(row.message)
            yield self.of_row(row)

    def of_lines(self, lines: Iterable[str], name: str, refuse: Refuse = stop) -> Iterator[Input]:
        """Yield the inputs of lines, without the blank ones.

        Args:
            lines: as they are read.
            name: what rows are named by: `name:12`.
            refuse: called with each line that cannot be read, and what is wrong with it.
        """
        from etude.tuning.data.sources.data_file import DataFile

        rows, count = False, 0
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text:
                continue
            count += 1
            try:
                if (complaint := DataFile(Path(name)).undecoded(line, number)) is not None:
                    raise DataError(complaint)
                row = self._row(text, f"{name}:{number}", rows=rows)
                made = self._of_text(text, f"{name}:{number}", count) if row is None else row
            except DataError as error:
                refuse(str(error))
                continue
            rows = rows or row is not None
            yield made

    def of_row(self, row: Row) -> Input:
        """Return the input of a row; the first row decides whether words are read.

        Raises:
            DataError: a column is missing, or holds no text.
        """
        read = self._of_row or self._row_reader(row)
        made = read(row)
        self._of_row = read  # not of a row that could not be read
        return made

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """The columns or templates of the texts of an input, and what names each."""
        data = self.recipe.data
        if self.column is not None:
            return ((self.column, "--column"),)
        if self.second is not None:
            key = "positive" if self.recipe.task == "reranking" else "text_pair"
            return (
                (data.text, "data.text of the run"),
                (self.second, f"data.{key} of the run"),
            )
        key, own = ("prompt", data.prompt) if self.recipe.task == "chat" else ("text", data.text)
        return ((own, f"data.{key} of the run, or --column"),)

    def _row_reader(self, first: Row) -> Callable[[Row], Input]:
        from etude.tuning.data.columns import field_reader
        from etude.tuning.data.tagging.reading import words_reader

        if self.recipe.task == "token-classification" and self.column is None:
            words = words_reader(self.recipe.data, first)
            if words is not None:
                return words
        readers = [field_reader(column, key) for column, key in self.columns]

        def read(row: Row) -> Input:
            if self.recipe.task == "reranking" and DOCUMENTS in row.values:
                return readers[0](row), _documents(row)
            texts = [reader(row) for reader in readers]
            for text, (column, _) in zip(texts, self.columns, strict=True):
                if not text.strip():
                    which = "" if len(texts) == 1 else f" (column {column!r})"
                    raise DataError(f"{row.origin}: the input is empty{which}")
            return texts[0] if len(texts) == 1 else (texts[0], texts[1])

        return read

    def _row(self, line: str, origin: str, *, rows: bool) -> Input | None:
        """Return the input of a line that is a JSON row; None for a line of text.

        Raises:
            DataError: it is meant as a row, and cannot be read.
        """
        from etude.core.json_text import parse_json
        from etude.tuning.data.sources.registry import Row

        if not line.startswith("{"):
            if rows:
                raise DataError(f"{origin} is not a JSON row, as the lines before it")
            return None
        meant = rows or self._mentioned(line)
        try:
            value: Any = parse_json(line)
        except ValueError as error:
            if meant:
                raise DataError(f"{origin} is not JSON: {error}") from None
            return None
        if not meant and self.recipe.task in GENERATING and self.column is None:
            return None
        return self.of_row(Row(origin, cast("dict[str, Any]", value)))

    def _mentioned(self, line: str) -> bool:
        from etude.tuning.data.columns import columns_of
        from etude.tuning.data.tagging.reading import WORDS

        names = {name for column, key in self.columns for name in columns_of(column, key)}
        if self.recipe.task == "token-classification" and self.column is None:
            names |= {self.recipe.data.words} if self.recipe.data.words else set(WORDS)
        return any(f'"{name}"' in line for name in names)

    def _of_text(self, line: str, origin: str, number: int) -> Input:
        """Return the input of a line of text.

        Raises:
            DataError: the run reads pairs and the line is none, or a column is named.
        """
        if self.column is not None:
            raise DataError(
                f"--column is for a file of rows or lines of JSON, and {origin} is plain text"
            )
        if self.second is None:
            return line
        first, tab, second = line.partition("\t")
        if not (tab and first.strip() and second.strip()):
            raise DataError(
                f"{origin}: input {number} must be two texts with a tab between them, or a JSON "
                f"row with {self.recipe.data.text!r} and {self.second!r}: this run {self._verb} "
                "pairs"
            )
        return first, second


def _documents(row: Row) -> list[str]:
    """Return the documents of a row.

    Raises:
        DataError: they are no list of texts.
    """
    from etude.core.json_text import text_list
    from etude.tuning.data.columns import parsed

    where = f"{row.origin}: column {DOCUMENTS!r}"
    texts = text_list(parsed(row.values[DOCUMENTS], where))
    if not texts or not all(text.strip() for text in texts):
        raise DataError(f"{where} must be a list of texts, none of them empty")
    return list(texts)


def _lines_of(file: Path, reader: InputReader) -> Iterator[Input]:
    from etude.tuning.data.sources.data_file import DataFile, decompression_errors

    try:
        with DataFile(file).open_text() as lines:
            yield from reader.of_lines(lines, file.name)
    except FileNotFoundError:
        near = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"no data file at {file}{did_you_mean(file.name, near)}") from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeError as error:
        raise DataError(f"{file} cannot be decoded: {error}") from None
    except decompression_errors() as error:
        raise DataError(f"{file} cannot be decompressed: {error}") from None
