"""`data.kind: docstrings`: pairs of function and docstring summary.

They come from the Python packages on this machine. Nothing is downloaded and nothing imported:
packages are located, their files parsed. Whole packages are held out (whole modules where there is
one package only), so that no function of the evaluation comes from code that is trained on; and a
function near another one in source or in summary (see `duplicates`) is left out, the evaluation's
own kept first.

Functions are drawn from the packages in turn, and within a package from four files in turn, so
that none dominates; files are read as they are needed, in an order set by the seed. A draw of a
thousand pairs so reads a few hundred files, not all of them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import sys
import sysconfig
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path

from etude.core.errors import DataError, did_you_mean
from etude.tuning.config.sections.data import DataSpec
from etude.tuning.data.duplicates import NearDuplicates
from etude.tuning.data.functions import Function, Refused, python_files, read_functions
from etude.tuning.data.schema import DataSplit, Message, Sample
from etude.tuning.data.sources.registry import SplitSource, register_source

STDLIB = "stdlib"
OPEN_FILES = 4
"""Files of one package that functions are taken from in turn."""


@dataclass(frozen=True)
class Package:
    """Python files that are held out, or trained on, together."""

    name: str
    root: Path
    """What origins are given relative to."""
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of source."""
        return sum(file.stat().st_size for file in self.files)


@dataclass
class Census:
    """What became of the functions looked at."""

    files: int = 0
    kept: int = 0
    near_duplicates: int = 0
    refused: Counter[Refused] = field(default_factory=Counter["Refused"])

    def __str__(self) -> str:
        seen = self.kept + self.near_duplicates + self.refused.total()
        reasons = Counter[str](self.refused)
        reasons["near-duplicate"] = self.near_duplicates
        listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        return (
            f"{self.kept:,} of {seen:,} documented functions in {self.files:,} files "
            f"(left out: {listed})"
        )


def ask_for_summary(source: str) -> str:
    """Return the user's message that asks for the summary line of a function."""
    return f"```python\n{source}\n```"


def load_docstrings(spec: DataSpec, seed: int) -> DataSplit:
    """Draw training and evaluation pairs as `spec` says.

    The same files, `spec` and `seed` give the same samples in the same order.

    Raises:
        DataError: a package is not installed, or a side has no usable function.
    """
    held_out = [_locate(name) for name in spec.eval_packages]
    names = spec.packages or _installed()
    packages = _apart([_locate(name) for name in names], held_out)
    if not held_out:
        packages, held_out = _hold_out(packages, spec.eval_fraction, seed)
    seen = _Seen()
    evaluation, eval_census = _draw(held_out, spec, spec.max_eval, seed, seen)
    training, train_census = _draw(packages, spec, spec.max_train, seed, seen)
    for side, samples, census, where in (
        ("evaluate", evaluation, eval_census, held_out),
        ("train", training, train_census, packages),
    ):
        if not samples and (side == "train" or spec.eval_packages or spec.eval_fraction > 0):
            named = ", ".join(package.name for package in where) or "no package"
            raise DataError(f"no usable functions to {side} on in {named}: {census}")
    return DataSplit(
        training,
        evaluation,
        [
            f"training pairs: {train_census}; from {_listed(packages)}",
            f"evaluation pairs: {eval_census}; from {_listed(held_out)}",
        ],
    )


# Where the source is


def _locate(name: str) -> Package:
    """Find a package by its import name, a folder or file by its path, or the standard library.

    A package's place is looked up without running any of its code.
    """
    path = Path(name).expanduser()
    top, *inner = name.split(".")
    found = _find(top) if name.replace(".", "").isidentifier() else None
    if path.is_dir():
        installed = [Path(place).resolve() for place in _places(found)]
        if name == STDLIB or (installed and path.resolve() not in installed):
            raise DataError(
                f"{name!r} is a package installed on this machine and a folder here; write "
                f"./{name} for the folder, or go elsewhere for the package"
            )
        return _package(path.resolve().name, path.resolve())
    if path.suffix == ".py" and path.is_file():
        file = path.resolve()
        return Package(file.stem, file.parent, (file,))
    if name == STDLIB:
        return _package(STDLIB, Path(sysconfig.get_path("stdlib")))
    if found is None:
        raise DataError(
            f"no installed package and no folder {name!r}{did_you_mean(name, _installed())}; "
            "use a package's import name"
        )
    for location in _places(found):
        folder = Path(location, *inner)
        if folder.is_dir():
            return _package(name, folder)
        if folder.with_suffix(".py").is_file():
            return Package(name, folder.parent, (folder.with_suffix(".py"),))
    if found.origin and found.origin.endswith(".py") and not inner:
        return Package(name, Path(found.origin).parent, (Path(found.origin),))
    raise DataError(f"{name!r} has no Python source on this machine")


def _find(top: str) -> ModuleSpec | None:
    """Return where a top-level package or module is installed; nothing is imported."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _places(found: ModuleSpec | None) -> list[str]:
    """Return the folders of a package; none for a module of one file."""
    return list(found.submodule_search_locations or ()) if found else []


def _package(name: str, root: Path) -> Package:
    files = tuple(python_files(root))
    if not files:
        raise DataError(f"{name!r} ({root}) holds no .py files outside of tests")
    return Package(name, root, files)


def _installed() -> list[str]:
    """Return the import names of what is installed, the standard library as one."""
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    names = {
        module.name
        for module in pkgutil.iter_modules([place for place in sys.path if place in places])
        if module.ispkg and not module.name.startswith("_")
    }
    return [STDLIB, *sorted(names)]


def _apart(packages: list[Package], held_out: list[Package]) -> list[Package]:
    """Return `packages` without the files that are held out, and each file once."""
    taken = {file for package in held_out for file in package.files}
    apart: list[Package] = []
    for package in packages:
        files = tuple(file for file in package.files if file not in taken)
        taken.update(files)
        if files:
            apart.append(Package(package.name, package.root, files))
    return apart


def _hold_out(
    packages: list[Package], fraction: float, seed: int
) -> tuple[list[Package], list[Package]]:
    """Split packages, or the modules of a single one, so that about `fraction` is held out.

    Packages are weighed by their bytes, modules by their usable functions: in a small package the
    modules held out could have none.
    """
    if fraction == 0:
        return packages, []
    whole = len(packages) > 1
    groups = packages if whole else _modules(packages[0])
    sizes = {group.name: group.size if whole else _usable(group) for group in groups}
    if sum(size > 0 for size in sizes.values()) < 2:
        raise DataError(
            f"{packages[0].name} has usable functions in one module at most, so none can be held "
            "out; name data.eval_packages"
        )
    goal = fraction * sum(sizes.values())
    chosen: set[str] = set()
    total = 0
    for name in sorted(sizes, key=lambda name: _order(name, seed)):
        if total < goal and total + sizes[name] <= 1.5 * goal:
            chosen.add(name)
            total += sizes[name]
    if not total:
        chosen = {
            min((name for name in sizes if sizes[name]), key=lambda name: (sizes[name], name))
        }
    held_out = [group for group in groups if group.name in chosen]
    rest = [group for group in groups if group.name not in chosen]
    return (rest, held_out) if whole else ([_joined(rest)], [_joined(held_out)])


def _modules(package: Package) -> list[Package]:
    return [
        Package(file.relative_to(package.root).as_posix(), package.root, (file,))
        for file in package.files
    ]


def _usable(package: Package) -> int:
    return sum(len(read_functions(file, Counter())) for file in package.files)


def _joined(modules: list[Package]) -> Package:
    root = modules[0].root
    files = tuple(file for module in modules for file in module.files)
    return Package(f"{len(modules)} modules of {root.name}", root, files)


def _order(key: str, seed: int) -> bytes:
    """Return what sorts keys into an order of the seed's own, the same on every machine."""
    return hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()


def _listed(packages: list[Package]) -> str:
    names = [package.name for package in packages]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


# Drawing


class _Seen:
    """What was taken so far, by source and by summary."""

    def __init__(self) -> None:
        self._sources = NearDuplicates(width=3)
        self._summaries = NearDuplicates(width=1)

    def take(self, function: Function) -> bool:
        """Remember a function if it is new; return whether it was."""
        if self._summaries.find(function.summary) or self._sources.find(function.source):
            return False
        self._summaries.add(function.summary)
        self._sources.add(function.source)
        return True


def _draw(
    packages: Iterable[Package], spec: DataSpec, limit: int | None, seed: int, seen: _Seen
) -> tuple[list[Sample], Census]:
    """Take functions from the packages in turn until `limit` are kept, or all are looked at."""
    census = Census()
    streams = deque(
        (package, _functions(package, seed, census))
        for package in sorted(packages, key=lambda package: _order(package.name, seed))
    )
    samples: list[Sample] = []
    while streams and (limit is None or len(samples) < limit):
        package, stream = streams.popleft()
        for file, function in stream:
            if seen.take(function):
                path = f"{package.root.name}/{file.relative_to(package.root).as_posix()}"
                samples.append(_sample(function, f"{path}:{function.line}", spec.system))
                streams.append((package, stream))
                break
            census.near_duplicates += 1
    census.kept = len(samples)
    return samples, census


def _functions(package: Package, seed: int, census: Census) -> Iterator[tuple[Path, Function]]:
    """Yield a package's functions, one from each of OPEN_FILES files in turn."""
    waiting = deque(
        sorted(package.files, key=lambda file: _order(str(file.relative_to(package.root)), seed))
    )
    opened: deque[tuple[Path, deque[Function]]] = deque()
    while waiting or opened:
        while waiting and len(opened) < OPEN_FILES:
            file = waiting.popleft()
            census.files += 1
            found = read_functions(file, census.refused)
            found.sort(key=lambda function: _order(f"{function.line}", seed))
            if found:
                opened.append((file, deque(found)))
        if opened:
            file, functions = opened.popleft()
            yield file, functions.popleft()
            if functions:
                opened.append((file, functions))


def _sample(function: Function, origin: str, system: str | None) -> Sample:
    turns = [
        Message("user", ask_for_summary(function.source)),
        Message("assistant", function.summary),
    ]
    if system is not None:
        turns.insert(0, Message("system", system))
    return Sample(tuple(turns), None, origin)


register_source(SplitSource("docstrings", load_docstrings))
