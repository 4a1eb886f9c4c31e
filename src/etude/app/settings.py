"""Settings of a user: whether a streak is counted, the time zone; each has a default.

settings = UserSettings(engine, user)
settings.read().streak
settings.change(streak=False)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from etude.core.errors import EtudeError

if TYPE_CHECKING:
    from sqlalchemy import Engine


class SettingsError(EtudeError):
    """A setting cannot have this value."""


@dataclass(frozen=True)
class Settings:
    """What a user chose."""

    streak: bool = True
    """Whether days in a row are counted and shown."""
    timezone: str = ""
    """Days begin and end by it; empty is this machine's."""


class UserSettings:
    """Reads and changes a user's settings.

    Args:
        engine: from `store.engine.open_store`.
        user: name of the user.
    """

    def __init__(self, engine: Engine, user: str) -> None:
        self.engine, self.user = engine, user

    def read(self) -> Settings:
        """Return the settings, defaults where nothing was chosen."""
        from sqlalchemy import select

        from etude.store.settings import Setting

        wanted = select(Setting.key, Setting.value).where(Setting.user == self.user)
        with self.engine.connect() as connection:
            rows = {row.key: row.value for row in connection.execute(wanted)}
        # Rows of a newer Etude, or of another type, are left alone and not used.
        known: dict[str, type[Any]] = {one.name: type(one.default) for one in fields(Settings)}
        return Settings(
            **{key: value for key, value in rows.items() if type(value) is known.get(key)}
        )

    def change(self, **values: bool | str) -> None:
        """Change the settings that are named.

        Raises:
            SettingsError: there is no such time zone.
        """
        from etude.store.settings import Setting
        from etude.store.upsert import insert_or_update

        if zone := values.get("timezone"):
            check_timezone(str(zone))
        rows = [{"user": self.user, "key": key, "value": value} for key, value in values.items()]
        with self.engine.begin() as connection:
            insert_or_update(connection, Setting, rows, columns=["value"])


def check_timezone(name: str) -> None:
    """Raise SettingsError if a time zone is unknown."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(
            f"there is no time zone {name!r}; use a name such as Europe/Berlin"
        ) from error
