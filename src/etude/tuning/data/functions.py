"""Python functions and the summary lines of their docstrings, read from source.

Source is parsed, never imported: looking at a package runs none of its code. A function is a
pair (what a model sees, what it is to write):

    source     the function as written, decorators and comments included, docstring taken out
    summary    the docstring's first paragraph on one line, if that is one plain sentence

Everything else is refused for a stated reason, and the reasons are counted.
"""

from __future__ import annotations

import ast
import gc
import re
import warnings
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etude.core.words import FUNCTION_WORDS, drop_plural_s

MAX_FILE = 1_000_000
"""Bytes; a longer file is a table or generated."""

LINES = range(3, 26)
"""Lines a function may have without its docstring."""

MAX_CHARACTERS = 700
"""Of a function's source: about 220 tokens, which leaves room for the rest of the prompt in 256."""

WORDS = range(3, 26)
"""Words a summary may have."""

SKIPPED_FOLDERS = frozenset(
    [
        *("test", "tests", "testing", "idle_test"),
        *("vendor", "_vendor", "vendored", "third_party", "extern", "externals"),
        *("site-packages", "dist-packages", "node_modules", "build", "venv", "env", "__pycache__"),
    ]
)
"""Tests say little in their docstrings; the rest is other people's code, or no source."""

_TEST_FILE = re.compile(r"(test_.*|.*_tests?|tests?|conftest)\.py|.*_pb2(_grpc)?\.py")
_GENERATED = re.compile(
    rb"(auto(matically)?[- ]?generated|generated (by|from|automatically)|do not edit)",
    re.IGNORECASE,
)

Refused = Literal[
    "body is a stub",
    "source too short or too long",
    "special method",
    "summary is no single plain sentence",
    "summary repeats the name",
    "summary is in the source",
]


@dataclass(frozen=True, slots=True)
class Function:
    """One function or method whose docstring has a usable summary."""

    name: str
    source: str
    """Dedented, without the docstring."""

    summary: str
    """One sentence, ending in a period."""

    line: int
    """Where it starts in its file, from 1."""


def python_files(folder: Path) -> Iterator[Path]:
    """Return the .py files under `folder` in a fixed order, but for tests and skipped folders."""
    subfolders: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            name = entry.name
            if name not in SKIPPED_FOLDERS and name[0] != "." and not entry.is_symlink():
                subfolders.append(entry)
        elif entry.suffix == ".py" and not _TEST_FILE.fullmatch(entry.name):
            yield entry
    for subfolder in subfolders:
        yield from python_files(subfolder)


def read_functions(file: Path, refused: Counter[Refused]) -> list[Function]:
    """Return the usable functions of one file; add the others to `refused`, by reason.

    A file that cannot be read, is not UTF-8, does not parse or is generated has none.
    """
    try:
        if file.stat().st_size > MAX_FILE:
            return []
        raw = file.read_bytes()
        # Parsing is what takes the time, and half of all files hold no docstring of a function.
        if not _MAYBE_DOCSTRING.search(raw) or _GENERATED.search(raw[:3000]):
            return []
        text = raw.decode("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escape sequences
            with _uncollected():
                tree = ast.parse(text)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = text.splitlines(keepends=True)
    found: list[Function] = []
    for node in _functions(tree.body):
        outcome = _function(node, lines)
        if isinstance(outcome, Function):
            found.append(outcome)
        elif outcome is not None:
            refused[outcome] += 1
    return found


# A line that ends in a colon, and a string on the next: needed for a docstring, if not enough.
_MAYBE_DOCSTRING = re.compile(rb"""\:[ \t]*(\#[^\n]*)?\r?\n\s*[rRuU]?["']""")


@contextmanager
def _uncollected() -> Generator[None]:
    """Keep the garbage collector from walking a growing tree over and over; it has no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return functions and methods, also those under `if` and `try`, not those inside functions."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body)
        elif isinstance(node, (ast.If, ast.Try)):
            yield from _functions(node.body)
            yield from _functions(node.orelse)


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]
) -> Function | Refused | None:
    first = node.body[0]
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return None
    docstring = first.value.value
    if not isinstance(docstring, str):
        return None
    if node.name.startswith("__") and node.name.endswith("__"):
        return "special method"
    if all(_says_nothing(statement) for statement in node.body[1:]):
        return "body is a stub"
    source = _source_without(node, first, lines)
    if source is None or source.count("\n") + 1 not in LINES or len(source) > MAX_CHARACTERS:
        return "source too short or too long"
    summary = summary_line(docstring)
    if summary is None:
        return "summary is no single plain sentence"
    if _repeats(node.name, summary):
        return "summary repeats the name"
    if _bare(summary) in _bare(source):
        return "summary is in the source"
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return Function(node.name, source, summary, start)


def _says_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Raise() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Return(value=ast.Name(id="NotImplemented")):
            return True
        case _:
            return False


def _source_without(
    node: ast.FunctionDef | ast.AsyncFunctionDef, docstring: ast.Expr, lines: list[str]
) -> str | None:
    """Return the function's lines but those of its docstring; None if they share a line."""
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    end = node.end_lineno or start
    above, below = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
    head = lines[above][: docstring.col_offset]
    tail = lines[below - 1].encode()[docstring.end_col_offset :].decode()
    if head.strip() or (tail.strip() and not tail.lstrip().startswith("#")):
        return None
    after = lines[below:end]
    while after and not after[0].strip():
        after = after[1:]
    indent = lines[start - 1][: len(lines[start - 1]) - len(lines[start - 1].lstrip())]
    kept = (line.removeprefix(indent) for line in lines[start - 1 : above] + after)
    return "".join(kept).expandtabs(4).strip("\n")


_ROLE = re.compile(r":[a-zA-Z:+-]+:`~?\.?([^`]*)`")
_ASIDE = re.compile(
    r"deprecat|todo|fixme|xxx|>>>|->|:param|:return|@param|@return|\bargs:|\bparameters:|https?:|"
    r"copied from|^see |see also|see the docs|for usage|^same as|^overrid|^wrapper|^alias|"
    r"%\(|\{\}|\\",
    re.IGNORECASE,
)
_TWO_SENTENCES = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\betc)[.!?]\s+\S")


def summary_line(docstring: str) -> str | None:
    """Return the first paragraph as one sentence that ends in a period, or None.

    Markup of Sphinx is reduced to what it shows: a role to its name, double backticks to single.
    """
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    line = " ".join(paragraph.split())
    line = _ROLE.sub(r"`\1`", line).replace("``", "`")
    line = line[:-1].rstrip() if line.endswith((".", "!")) else line
    if len(line.split()) not in WORDS or not line.isascii():
        return None
    if not line[0].isalpha() or (not line[-1].isalnum() and line[-1] not in ")`'\"]"):
        return None
    if _ASIDE.search(line) or _TWO_SENTENCES.search(line) or " - " in line or ": " in line:
        return None
    letters = sum(character.isalpha() or character == " " for character in line)
    if letters < 0.8 * len(line):
        return None
    return line[0].upper() + line[1:] + "."


_FILLERS = FUNCTION_WORDS | {"self"}


def _repeats(name: str, summary: str) -> bool:
    """Tell whether the summary says no more than the name: `get_size`, "Get the size."."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).replace("_", " ")
    known = {_singular(word) for word in spaced.lower().split()}
    said = {_singular(word) for word in re.findall(r"[a-z0-9]+", summary.lower())} - _FILLERS
    return said <= known


def _singular(word: str) -> str:
    return drop_plural_s(word, shortest=4)


def _bare(text: str) -> str:
    """Return the words of a text alone, to see one text within another."""
    return " ".join(re.findall(r"\w+", text.lower()))
