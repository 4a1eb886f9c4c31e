"""Optional dependencies: which extra of the package to install where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from etude.core.errors import MissingExtraError


def require_extra(extra: str, purpose: str, *modules: str) -> None:
    """Check that the modules of an extra can be imported, without importing them.

    Args:
        extra: its name in pyproject.toml.
        purpose: what needs it, as the subject of the message.
        modules: top-level modules that it installs.

    Raises:
        MissingExtraError: one of them is missing; the message says what to install.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(
                f"{purpose} needs the package {module!r}: pip install 'etude[{extra}]'"
            )
