"""Commands and options that have another name now: the old one answers with the new one.

An entry stays for one version after the rename.
"""

from __future__ import annotations

from collections.abc import Sequence

from etude.core.errors import RenamedError

COMMANDS = {
    ("plan",): "memory",
    ("papers", "forget"): "papers unlike",
}

OPTIONS = {
    ("tune",): {"--anyway": "--ignore-memory"},
    ("papers", "digest"): {"--again": "--resend", "--most": "--limit"},
    ("papers", "export"): {"--most": "--limit"},
    ("papers", "related"): {"--most": "--limit"},
    ("papers", "search"): {"--most": "--limit"},
    ("papers", "summarise"): {"--most": "--limit"},
    ("papers", "today"): {"--most": "--limit"},
    ("practice", "judge"): {"--demand": "--require"},
    ("practice", "run"): {"--demand": "--require"},
    ("practice", "submit"): {"--demand": "--require"},
}


def refuse_old_names(arguments: Sequence[str]) -> None:
    """Raise if the command line uses a name that was changed.

    It looks at the words before the parser does: `etude papers search` takes options that it does
    not know for words of the query.

    Args:
        arguments: the command line without the program's name.

    Raises:
        RenamedError: naming the old and the new name.
    """
    words = list(arguments)
    if "--" in words:
        words = words[: words.index("--")]
    for command, new in COMMANDS.items():
        if tuple(words[: len(command)]) == command:
            raise RenamedError(f"etude {' '.join(command)} is now etude {new}")
    for command, options in OPTIONS.items():
        if tuple(words[: len(command)]) != command:
            continue
        for word in words[len(command) :]:
            old = word.partition("=")[0]
            if old in options:
                raise RenamedError(f"{old} of etude {' '.join(command)} is now {options[old]}")
