import threading

import pytest
from sqlalchemy import func, select

from etude.store.papers import Listing, Mark, Opinion, Paper
from etude.store.upsert import insert_or_ignore, insert_or_update


def listings(engine):
    with engine.connect() as connection:
        found = connection.execute(select(Listing.id, Listing.day, Listing.kind))
        return sorted(map(tuple, found))


def listing(key, kind):
    return {"id": key, "day": "2026-05-04", "kind": kind}


def test_rows_that_are_there_are_ignored(engine):
    with engine.begin() as connection:
        assert insert_or_ignore(connection, Listing, [listing("a", "new")]) == 1
        assert insert_or_ignore(connection, Listing, [listing("a", "cross")]) == 0
        assert insert_or_ignore(connection, Listing, []) == 0
        rows = [listing("a", "cross"), listing("b", "cross"), listing("b", "new")]
        assert insert_or_ignore(connection, Listing, rows) == 1
    assert listings(engine) == [("a", "2026-05-04", "new"), ("b", "2026-05-04", "cross")]


def test_rows_that_are_there_are_updated(engine):
    with engine.begin() as connection:
        insert_or_ignore(connection, Listing, [listing("a", "cross")])
        rows = [listing("a", "new"), listing("b", "new")]
        assert insert_or_update(connection, Listing, rows, columns=["kind"]) == 2
        assert insert_or_update(connection, Listing, [], columns=["kind"]) == 0
    assert listings(engine) == [("a", "2026-05-04", "new"), ("b", "2026-05-04", "new")]


def test_only_the_named_columns_change_and_only_where_the_condition_holds(engine):
    def put(connection, value, at):
        row = {"user": "ada", "id": "1", "value": value, "at": at}
        younger = Opinion.at < at
        return insert_or_update(connection, Opinion, [row], columns=["value"], where=younger)

    with engine.begin() as connection:
        assert put(connection, 1, 5.0) == 1
        assert put(connection, -1, 4.0) == 0
        assert put(connection, -1, 6.0) == 1
        found = connection.execute(select(Opinion.value, Opinion.at)).one()
    assert tuple(found) == (-1, 5.0)


def test_a_value_may_be_an_expression_and_defaults_of_the_table_apply(engine):
    newest = select(func.coalesce(func.max(Paper.number), 0)).scalar_subquery()
    with engine.begin() as connection:
        row = {"user": "ada", "id": "1", "value": newest, "at": 1.0}
        assert insert_or_ignore(connection, Opinion, [row]) == 1
        insert_or_ignore(connection, Listing, [{"id": "a", "day": "2026-05-04"}])
        assert connection.scalar(select(Opinion.value)) == 0
    assert listings(engine) == [("a", "2026-05-04", "new")]


@pytest.mark.parametrize("value", [None, 0, "x", ["a", 1], {"k": None}])
def test_json_comes_back_as_it_went_in(engine, value):
    with engine.begin() as connection:
        for one in ("before", value):
            row = {"key": "k", "value": one}
            insert_or_update(connection, Mark, [row], columns=["value"])
        assert connection.scalar(select(Mark.value).where(Mark.key == "k")) == value


def test_two_at_once_insert_a_row_once(engine):
    counts = []

    def work():
        for number in range(20):
            with engine.begin() as connection:
                counts.append(insert_or_ignore(connection, Listing, [listing(str(number), "new")]))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == len(listings(engine)) == 20
