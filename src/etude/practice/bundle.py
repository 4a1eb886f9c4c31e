"""Export and import of problems as zip files."""

from __future__ import annotations

import stat
import zipfile
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from etude.core.atomic_files import new_folder, replace_file
from etude.core.errors import ProblemError
from etude.practice.problem import Problem, load_problem

MOST_BYTES = 5 << 20
FILES = {
    "problem.md",
    "starter.py",
    "solution.py",
    "tests.py",
    "driver.py",
    "hints.md",
    "explanation.md",
}


def export_problems(problems: list[Problem], file: Path) -> int:
    """Write problems to a zip, `collection/slug/…`; return the number of files.

    Raises:
        OSError: the zip cannot be written; one that was there is unchanged.
    """
    files = [
        (f"{problem.collection}/{problem.slug}/{path.relative_to(problem.folder).as_posix()}", path)
        for problem in problems
        for path in sorted([*problem.folder.glob("*.*"), *(problem.folder / "wrong").glob("*.py")])
    ]

    def write(aside: Path) -> None:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
            for inside, path in files:
                # A fixed date: the same problems give the same bytes.
                archive.writestr(zipfile.ZipInfo(inside, (2020, 1, 1, 0, 0, 0)), path.read_bytes())

    replace_file(file.resolve(), write)
    return len(files)


def import_problems(file: Path, shelf: Path) -> list[Problem]:
    """Unpack the problems of a zip into a shelf.

    No code of theirs is run. `tests.py` and `solution.py` are code that the judge trusts, so they
    should be read before the first submission.

    Raises:
        ProblemError: the file is not a zip, is too large, has a path outside the shelf, or
            contains a problem that exists already or is not one.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise ProblemError(f"{file}: larger than {MOST_BYTES >> 20} MB when unpacked")
            folders = sorted({_checked(file, entry) for entry in entries})
            for folder in folders:
                if (shelf / folder).exists():
                    raise ProblemError(f"{shelf / folder} already exists")
            with ExitStack() as made:
                places = {one: made.enter_context(new_folder(shelf / one)) for one in folders}
                for entry in entries:
                    folder, inside = _split(entry)
                    target = places[folder] / inside
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(archive.read(entry))
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise ProblemError(f"{file} cannot be unpacked: {error}") from error
    return [load_problem(shelf / folder) for folder in folders]


def _checked(file: Path, entry: zipfile.ZipInfo) -> str:
    """Return the problem's folder of a zip entry, after checking its path."""
    parts = PurePosixPath(entry.filename).parts
    plain = "\\" not in entry.filename and not any(
        part in ("..", "/", "") or part.startswith(".") for part in parts
    )
    known = (len(parts) == 3 and parts[2] in FILES) or (
        len(parts) == 4 and parts[2] == "wrong" and parts[3].endswith(".py")
    )
    if not plain or not known or stat.S_ISLNK(entry.external_attr >> 16):
        raise ProblemError(f"{file}: {entry.filename!r} is not a file of a problem")
    return _split(entry)[0]


def _split(entry: zipfile.ZipInfo) -> tuple[str, str]:
    """Return the problem's folder of an entry, `collection/slug`, and its path in it."""
    parts = PurePosixPath(entry.filename).parts
    return "/".join(parts[:2]), "/".join(parts[2:])
