"""The time zone of this machine."""

from __future__ import annotations

import os
from pathlib import Path


def local_timezone() -> str:
    """Return the name of this machine's time zone, or UTC."""
    chosen = os.environ.get("TZ", "").lstrip(":")
    if chosen and (Path("/usr/share/zoneinfo") / chosen).exists():
        return chosen
    parts = Path("/etc/localtime").resolve().parts
    return "/".join(parts[parts.index("zoneinfo") + 1 :]) if "zoneinfo" in parts else "UTC"
