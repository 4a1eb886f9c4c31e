"""Name of the current user, shared by practice and papers.

`ETUDE_USER` sets the name; the default is the name of the system account.

For one version, the former variables are honoured where `ETUDE_USER` is not set: `ETUDE_LEARNER`
names the user everywhere, and `ETUDE_READER` overrides it for papers only. A user who has set both,
to different names, keeps two records until `ETUDE_USER` is set. Records under another name stay in
the database under that name.
"""

from __future__ import annotations

import getpass
import os
from typing import Literal

Room = Literal["practice", "papers"]

_FORMER: dict[Room | None, tuple[str, ...]] = {
    "practice": ("ETUDE_LEARNER",),
    "papers": ("ETUDE_READER", "ETUDE_LEARNER"),
    None: ("ETUDE_LEARNER", "ETUDE_READER"),
}


def current_user(room: Room | None = None) -> str:
    """Return the name of the current user.

    Args:
        room: the package whose former variable applies without `ETUDE_USER`; None takes either.
    """
    for variable in ("ETUDE_USER", *_FORMER[room]):
        if name := os.environ.get(variable):
            return name
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container's user id without an account.
        return f"user-{os.getuid()}"
