"""Uids as they are shown and kept: the digits say all, sort alike, and every column of a uid keeps the same."""

from __future__ import annotations

from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite
from sqlmodel import SQLModel

from gateway.kernel import ids, noun
from gateway.kernel.row import Uid


@given(st.lists(st.uuids(), min_size=2, max_size=8))
@settings(max_examples=80, deadline=None)
def test_digits_say_all_of_a_uid_and_sort_as_it_does(uids: list[UUID]) -> None:
    shown = [ids.digits(each) for each in uids]
    assert {len(each) for each in shown} == {ids.DIGITS}
    assert [ids.of_digits(each) for each in shown] == uids
    assert [ids.of_printed(each) for each in shown] == uids == [ids.of_printed(str(each)) for each in uids]
    assert [ids.decode(ids.encode("x", each)) for each in uids] == [("x", each) for each in uids]
    assert sorted(shown) == [ids.digits(each) for each in sorted(uids)]


def test_the_digits_are_those_of_the_specification() -> None:
    assert ids.encode("prefix", UUID("0188bac7-4afa-78aa-bc3b-bd1eef28d881")) == "prefix_01h2xcejqtf2nbrexx3vqjhp41"


def test_every_column_of_a_uid_is_kept_alike() -> None:
    noun.load_all()
    columns = [
        (f"{table.name}.{column.name}", type(column.type))
        for table in SQLModel.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, sa.Uuid)
    ]
    assert len(columns) > 30
    assert [name for name, kind in columns if kind is not Uid] == [], "these would meet no other uid on SQLite"


@pytest.mark.parametrize("uid", [None, UUID(int=2**127 + 5)])
def test_sqlite_keeps_digits(uid: UUID | None) -> None:
    dialect = sqlite.dialect()
    write, read = Uid().bind_processor(dialect), Uid().result_processor(dialect, None)
    kept = write(uid)
    assert kept == (None if uid is None else "40000000000000000000000005")
    assert read(kept) == uid
