"""Everything of a user as a file: exported, imported, deleted."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest
from tests.app.test_today import solve

from etude.app.archive import (
    ArchiveError,
    count_records,
    delete_all,
    export_all,
    import_all,
)
from etude.app.settings import Settings, UserSettings
from etude.app.workbench import open_workbench
from etude.practice.problem import load_shelf


@pytest.fixture
def bench(installation):
    bench = open_workbench(runs=installation / "runs")
    problem, other = load_shelf()[:2]
    solve(bench, problem)
    solve(bench, other, accepted=False)
    bench.drafts.save(other.slug, "=1+1", 0, "a" * 16)
    bench.reader.follow("A. Turing")
    bench.choices.change(streak=False, timezone="Asia/Tokyo")
    yield bench
    bench.close()


def changed(archive: bytes, change) -> io.BytesIO:
    """Return an archive whose content was changed."""
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        whole = json.loads(packed.read("etude.json"))
    change(whole)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as packed:
        packed.writestr("etude.json", json.dumps(whole))
    target.seek(0)
    return target


def test_what_was_deleted_comes_back_from_an_export(bench):
    before = count_records(bench.engine, "ada")
    stats = bench.progress.stats()
    archive = export_all(bench.engine, "ada")
    gone = delete_all(bench.engine, "ada")
    assert gone.records == sum(before.values()) > 5
    assert sum(count_records(bench.engine, "ada").values()) == 0
    assert bench.progress.stats().submissions == 0

    done = import_all(bench.engine, "ada", io.BytesIO(archive))
    assert (done.added, done.already) == (gone.records, 0)
    assert count_records(bench.engine, "ada") == before
    assert bench.progress.stats() == stats
    assert UserSettings(bench.engine, "ada").read() == Settings(False, "Asia/Tokyo")
    # A second import adds nothing.
    again = import_all(bench.engine, "ada", io.BytesIO(archive))
    assert (again.added, again.already) == (0, gone.records)


def test_another_user_keeps_everything_and_gets_nothing_twice(bench, installation):
    archive = export_all(bench.engine, "ada")
    own = count_records(bench.engine, "ada")
    done = import_all(bench.engine, "grace", io.BytesIO(archive))
    # Submissions have keys that are unique in a database, so these stay those of ada.
    assert done.already == own["practice_submissions"] == 2
    delete_all(bench.engine, "grace")
    assert count_records(bench.engine, "ada") == own


def test_tables_are_there_as_csv_in_which_no_text_is_a_formula(bench):
    with zipfile.ZipFile(io.BytesIO(export_all(bench.engine, "ada"))) as packed:
        text = packed.read("practice_drafts.csv").decode()
        assert "Records of ada" in packed.read("README.txt").decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["source"] == "'=1+1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda whole: whole.update(form=2), "newer Etude"),
        (lambda whole: whole["tables"].update(papers=[{"id": "x"}]), "tables"),
        (lambda whole: whole["tables"].update(papers_marks=[]), "tables"),
        (lambda whole: whole["tables"]["settings"][0].update(user="grace"), "columns"),
        (lambda whole: whole["tables"]["practice_reviews"][0].update(due="soon"), "cannot be read"),
        (lambda whole: whole["tables"]["practice_reviews"][0].update(box="9"), "box cannot be"),
        (lambda whole: whole["tables"]["practice_reviews"][0].update(box=True), "box cannot be"),
        (lambda whole: whole["tables"]["practice_reviews"][0].pop("due"), "due cannot be None"),
        (lambda whole: whole["tables"]["practice_drafts"][0].update(slug="x" * 81), "slug"),
        (
            lambda whole: whole["tables"]["practice_submissions"][0].update(state="queued"),
            "not judged",
        ),
        (
            lambda whole: whole["tables"]["practice_submissions"][0].update(verdict={"a": 1}),
            "cannot be read",
        ),
    ],
)
def test_an_archive_that_does_not_fit_changes_nothing(bench, change, says):
    archive = changed(export_all(bench.engine, "ada"), change)
    delete_all(bench.engine, "ada")
    with pytest.raises(ArchiveError, match=says):
        import_all(bench.engine, "ada", archive)
    assert sum(count_records(bench.engine, "ada").values()) == 0


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"x" * 1000])
def test_what_is_no_archive_is_refused(bench, content):
    with pytest.raises(ArchiveError, match="no archive"):
        import_all(bench.engine, "ada", io.BytesIO(content))


def test_every_table_with_a_user_is_exported_or_is_rebuilt_at_each_start():
    from etude.app import archive
    from etude.store.base import Base

    owned = {name for name, table in Base.metadata.tables.items() if "user" in table.columns}
    assert owned - set(archive._tables()) == {"practice_profiles"}
