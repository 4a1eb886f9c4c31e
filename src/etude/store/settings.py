"""Table of the settings that a user changes in the app."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from etude.store.base import Base


class Setting(Base):
    """One setting of a user; what has no row has its default."""

    __tablename__ = "settings"

    user: Mapped[str] = mapped_column(String(80), primary_key=True)
    key: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)
