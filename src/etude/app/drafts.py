"""Drafts: recipes that are being written, with their data, before a run is started.

A draft is a folder of the data folder: `recipe.yaml`, `data/` with what was uploaded, and what was
seen of each version of the recipe, so that a reload shows it at once. Looking takes seconds to
minutes, so it goes on in a thread; whoever asks meanwhile is told what is being looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from etude.app import lab
from etude.core.atomic_files import disk_reason, replace_text, to_json
from etude.core.errors import DataError, EtudeError
from etude.core.paths import home

if TYPE_CHECKING:
    from etude.app.recipe_form import RecipeForm
    from etude.tuning.runs.folder import RunFolder
    from etude.tuning.search.space import Space

Part = Literal["preview", "masks", "memory", "findings"]
PARTS: tuple[Part, ...] = ("preview", "masks", "memory", "findings")

LARGEST_UPLOAD = 512_000_000
"""Bytes of an uploaded file."""

KEPT_DAYS = 30
"""Drafts that nobody has changed for longer are removed when another is made."""

_ID = re.compile(r"[0-9a-f]{16}")
_TYPES: dict[Part, Any] = {
    "preview": lab.Preview,
    "masks": lab.Masks,
    "memory": lab.MemoryPlan,
    "findings": lab.Findings,
}
_looking: set[tuple[str, str]] = set()
_lock = threading.Lock()


@dataclass(frozen=True)
class Seen:
    """What is known of one part."""

    part: Part
    answer: Any = None
    """The part's dataclass of `lab`; None if it is not known."""
    error: str = ""
    """Why it cannot be known."""
    pending: bool = False
    """Whether it is being looked at."""


class Draft:
    """One draft. See the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def id(self) -> str:
        """What pages name it by."""
        return self.folder.name

    @property
    def yaml(self) -> str:
        """The recipe's text as it was last written."""
        return (self.folder / "recipe.yaml").read_text("utf-8")

    @property
    def notes(self) -> list[str]:
        """What was read from the data when the draft was made."""
        try:
            return json.loads((self.folder / "notes.json").read_text("utf-8"))
        except (OSError, ValueError):
            return []

    def form(self) -> RecipeForm:
        """Return the recipe as a form."""
        from etude.app.recipe_form import read_form

        return read_form(self.yaml)

    def write(self, yaml: str) -> None:
        """Replace the recipe's text.

        Raises:
            DataError: the disk is full, or the folder may not be written.
        """
        try:
            replace_text(self.folder / "recipe.yaml", yaml)
        except OSError as error:
            raise DataError(f"the recipe cannot be stored: {disk_reason(error)}") from None

    def seen(self) -> dict[Part, Seen]:
        """Return what is known of the recipe as it is now."""
        mark = self._mark()
        pending = (self.id, mark) in _looking
        return {part: self._seen(part, mark, pending=pending) for part in PARTS}

    def look(self, base: Path) -> None:
        """Begin to look at all parts that are not known yet, in a thread.

        Args:
            base: folder that runs are kept in; its disk counts.
        """
        mark, yaml = self._mark(), self.yaml
        with _lock:
            if (self.id, mark) in _looking:
                return
            _looking.add((self.id, mark))
        thread = threading.Thread(target=self._look, args=(mark, yaml, base), daemon=True)
        thread.start()

    def signature(self) -> str:
        """Return a text that changes when another part is known."""
        known = [
            f"{one.part}{one.pending}{bool(one.error)}{one.answer is None}"
            for one in self.seen().values()
        ]
        return hashlib.sha256("".join([self._mark(), *known]).encode()).hexdigest()[:16]

    def start(self, base: Path, *, ignore_memory: bool = False) -> RunFolder:
        """Put a run of the recipe into the queue, and start it if none is at work.

        Raises:
            EtudeError: the recipe is not valid, or the run's folder cannot be made.
        """
        from etude.app.jobs import add_job, advance
        from etude.app.recipe_form import read_recipe
        from etude.app.tune import PlannedRun
        from etude.tuning.tasks.detect import resolved

        recipe = read_recipe(self.yaml)
        recipe.require_data()
        recipe, _ = resolved(recipe)
        run = add_job(PlannedRun(recipe), base, ignore_memory=ignore_memory)
        self._keep_for(run)
        advance(base)
        return run

    def search(self, space: Space, base: Path) -> RunFolder:
        """Put a search around the recipe into the queue, and start it if nothing is at work.

        Raises:
            EtudeError: Optuna is not installed, or the search's folder cannot be made.
        """
        from etude.app.jobs import add_search, advance
        from etude.app.search import PlannedSearch
        from etude.tuning.search.storage import require_optuna

        require_optuna()
        search = add_search(PlannedSearch(space), base)
        self._keep_for(search)
        advance(base)
        return search

    def _keep_for(self, run: RunFolder) -> None:
        """Note a run: its data may be here, so the draft stays as long as the run does."""
        replace_text(self.folder / "runs.json", to_json([*self._runs(), str(run.path)]))

    def _runs(self) -> list[str]:
        try:
            return json.loads((self.folder / "runs.json").read_text("utf-8"))
        except (OSError, ValueError):
            return []

    def is_needed(self) -> bool:
        """Whether a run was started from it that is still there."""
        return any(Path(run).is_dir() for run in self._runs())

    def remove(self) -> None:
        """Delete the draft and what was uploaded for it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _mark(self) -> str:
        return hashlib.sha256(self.yaml.encode()).hexdigest()[:16]

    def _look(self, mark: str, yaml: str, base: Path) -> None:
        questions = {
            "preview": lambda: lab.preview(yaml),
            "masks": lambda: lab.masks(yaml),
            "memory": lambda: lab.memory_plan(yaml, base),
            "findings": lambda: lab.findings(yaml),
        }
        try:
            for part in PARTS:
                # The draft may have been changed or removed meanwhile.
                if not self.folder.is_dir() or self._mark() != mark:
                    return
                if (self.folder / f"{part}-{mark}.json").exists():
                    continue
                try:
                    content: dict[str, Any] = {"answer": asdict(questions[part]())}
                except EtudeError as error:
                    content = {"error": str(error)}
                replace_text(self.folder / f"{part}-{mark}.json", to_json(content))
        except OSError:
            return  # a full disk, or a draft that is gone: it can be looked at again
        finally:
            with _lock:
                _looking.discard((self.id, mark))

    def _seen(self, part: Part, mark: str, *, pending: bool) -> Seen:
        from pydantic import TypeAdapter, ValidationError

        try:
            content = json.loads((self.folder / f"{part}-{mark}.json").read_text("utf-8"))
            if "error" in content:
                return Seen(part, error=str(content["error"]))
            return Seen(part, TypeAdapter(_TYPES[part]).validate_python(content["answer"]))
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return Seen(part, pending=pending)


def begin_upload(name: str) -> tuple[Draft, Path]:
    """Return a new, empty draft, and the file that an upload of this name is to be written to.

    Only the name's letters, digits, dots, dashes and underscores are used, and its last part.
    """
    _remove_old()
    folder = _folder() / secrets.token_hex(8)
    (folder / "data").mkdir(parents=True)
    plain = re.sub(r"[^\w.-]+", "-", name.replace("\\", "/").rpartition("/")[2]).lstrip(".-")
    return Draft(folder), folder / "data" / (plain[-100:] or "data")


def make_draft(draft: Draft, data: str, *, task: str, model: str | None, method: str) -> None:
    """Write the recipe of a new draft, as its data suggest.

    Raises:
        EtudeError: the data cannot be read, or what they are for is ambiguous.
    """
    made = lab.decide(data, task=task, model=model, method=method)
    replace_text(draft.folder / "notes.json", to_json(made.notes))
    draft.write(made.yaml)


def draft_of_text(yaml: str) -> Draft:
    """Return a new draft of a recipe's text."""
    draft, _ = begin_upload("")
    draft.write(yaml)
    return draft


def find_draft(name: str) -> Draft:
    """Return the draft with this id.

    Raises:
        DataError: there is none.
    """
    folder = _folder() / name
    if not _ID.fullmatch(name) or not (folder / "recipe.yaml").is_file():
        raise DataError("there is no such draft; it may have been removed")
    return Draft(folder)


def store_upload(file: Path, chunks: Iterable[bytes]) -> int:
    """Write an upload to a file as it comes; return its bytes.

    Raises:
        DataError: it is larger than `LARGEST_UPLOAD`, or the disk is full; nothing is left of it.
    """
    size = 0
    try:
        with file.open("wb") as stream:
            for chunk in chunks:
                size += len(chunk)
                if size > LARGEST_UPLOAD:
                    raise DataError(
                        f"the file is larger than {LARGEST_UPLOAD // 10**6} MB; name its path "
                        "instead of sending it"
                    )
                stream.write(chunk)
    except (OSError, DataError) as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(f"the file cannot be stored: {disk_reason(error)}") from None
        raise
    return size


def rows_like(draft: Draft, search: str, first: int) -> lab.Preview:
    """Return rows of a draft's data that contain a text.

    Raises:
        EtudeError: the data cannot be read.
    """
    return lab.preview(draft.yaml, search=search, first=first)


def masks_of(draft: Draft, origins: Sequence[str], model: str | None = None) -> lab.Masks:
    """Return the loss mask of rows of a draft's data.

    Raises:
        EtudeError: the data have no such row.
    """
    return lab.masks(draft.yaml, origins=origins, model=model)


def _folder() -> Path:
    return home() / "lab"


def _remove_old() -> None:
    now = time.time()
    for folder in _folder().glob("*"):
        recipe = folder / "recipe.yaml"
        written = recipe if recipe.exists() else folder
        draft = Draft(folder)
        if now - written.stat().st_mtime > KEPT_DAYS * 86_400 and not draft.is_needed():
            draft.remove()
