"""What a user chose, kept under the user's name."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from etude.app.practice import open_progress
from etude.app.settings import Settings, SettingsError, UserSettings
from etude.store.settings import Setting


def test_what_was_not_chosen_has_its_default_and_each_user_has_their_own(installation):
    engine = open_progress().engine
    ada, grace = UserSettings(engine, "ada"), UserSettings(engine, "grace")
    ada.change(streak=False)
    ada.change(timezone="Asia/Tokyo")
    assert ada.read() == Settings(streak=False, timezone="Asia/Tokyo")
    assert grace.read() == Settings()


def test_a_chosen_time_zone_decides_which_day_it_is(installation):
    progress = open_progress()
    UserSettings(progress.engine, "ada").change(timezone="Asia/Tokyo")
    assert open_progress().timezone().key == "Asia/Tokyo"
    with pytest.raises(SettingsError, match="no time zone 'Mars/Base'"):
        UserSettings(progress.engine, "ada").change(timezone="Mars/Base", streak=False)
    assert UserSettings(progress.engine, "ada").read() == Settings(timezone="Asia/Tokyo")


def test_rows_that_this_version_does_not_know_are_not_used(installation):
    engine = open_progress().engine
    rows = [
        {"user": "ada", "key": "later", "value": 1},
        {"user": "ada", "key": "streak", "value": "x"},
    ]
    with engine.begin() as connection:
        connection.execute(insert(Setting), rows)
    assert UserSettings(engine, "ada").read() == Settings()
