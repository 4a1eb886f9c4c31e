"""Who uses Etude at this terminal: one name for problems, papers and all else that is kept.

`ETUDE_USER` is the name; without it, the name of the system's account.

For one version, the variables of before are honoured where `ETUDE_USER` is not set, each as it was:
`ETUDE_LEARNER` names the user everywhere, and `ETUDE_READER` overrides it for papers only. So
whoever has set both, to different names, keeps two records until they set `ETUDE_USER`. What was
kept under another name stays in the database under that name.
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
    """Return the name of the person at this terminal.

    Args:
        room: whose former variable counts where `ETUDE_USER` is not set; None takes either.
    """
    for variable in ("ETUDE_USER", *_FORMER[room]):
        if name := os.environ.get(variable):
            return name
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container's number without an account.
        return f"user-{os.getuid()}"
