"""Checks for optional dependencies."""

from __future__ import annotations

from importlib.util import find_spec

from etude.core.errors import MissingExtraError


def require_extra(extra: str, purpose: str, *modules: str) -> None:
    """Check that the modules of an extra can be imported, without importing them.

    Args:
        extra: name of the extra in pyproject.toml.
        purpose: the feature that needs it, the subject of the message.
        modules: top-level modules that the extra installs.

    Raises:
        MissingExtraError: a module is missing; the message gives the command to install it.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(
                f"{purpose} needs the package {module!r}: pip install 'etude[{extra}]'"
            )
