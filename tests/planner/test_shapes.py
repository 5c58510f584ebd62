"""What one plan may serve: all subjects of a shape, whatever their keys; and ids, whatever stands beside them."""

from __future__ import annotations

import json
from itertools import product
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.kernel import ids, noun
from gateway.kernel.access import NOBODY, Role, Subject
from gateway.reads import subjects
from gateway.reads.errors import NotAsPromised
from gateway.reads.holes import ID_MARK, MARK, POISON, Holes, encoded, fill_float
from gateway.reads.statement import Dialect
from gateway.reads.subjects import Shape, Slot
from resolvers.schema import schema

schema()  # all nouns
SHAPES = [
    Shape(admin, True, not by_key, by_key, tenants)
    for admin, by_key, tenants in product((False, True), (False, True), ((0, 0, 0), (1, 0, 0), (0, 2, 4), (1, 1, 1)))
]


@pytest.mark.parametrize("prefix", sorted(noun.BY_PREFIX))
def test_a_scope_asks_for_nothing_but_the_shape(prefix: str) -> None:
    """With other keys it must say the same words, and hold the same values but for the subject's keys."""
    for shape in SHAPES:
        told = []
        for first in (1_000, 77_000_000):
            subject = subjects.symbolic(shape, first)
            found = sa.select(sa.literal(1)).where(noun.BY_PREFIX[prefix].scope(subject))
            made = found.compile(dialect=Dialect(on_sqlite=True).sql, compile_kwargs={"render_postcompile": True})
            values = [made.params[name] for name in made.positiontup or ()]
            told.append((str(made), [("slot", each.index) if isinstance(each, Slot) else each for each in values]))
        assert told[0] == told[1]


def test_a_shape_counts_tenants_by_role_and_rounds_up() -> None:
    roles = {1: Role.READER, 2: Role.MANAGER, 3: Role.MANAGER, 4: Role.MANAGER}
    subject = Subject(user_id=7, session_id=9, roles=roles)
    shape = subjects.shape(subject)
    assert shape == Shape(False, True, True, False, (1, 0, 4))
    assert shape is not None
    assert subjects.values(subject, shape) == [7, 9, None, 1, 2, 3, 4, 4]
    known = subjects.symbolic(shape).roles
    assert [(key.index, role) for key, role in known.items() if isinstance(key, Slot)] == [
        (3, Role.READER), (4, Role.MANAGER), (5, Role.MANAGER), (6, Role.MANAGER), (7, Role.MANAGER),
    ]  # fmt: skip
    assert subjects.shape(NOBODY) == Shape(False, False, False, False, (0, 0, 0))
    assert subjects.shape(Subject(user_id=7, roles=dict.fromkeys(range(65), Role.READER))) is None


@given(st.lists(st.uuids(), min_size=1, max_size=70), st.booleans())
@settings(max_examples=60, deadline=None)
def test_ids_are_encoded_together_as_one_by_one(uids: list[UUID], hyphens: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    shown = [(str(each) if hyphens else each.hex).encode() for each in uids]
    assert [f"x_{each.decode()}" for each in encoded(shown)] == [ids.encode("x", each) for each in uids]


def test_holes_are_filled_and_the_rest_is_left_in_ascii() -> None:
    holes = Holes()
    number = holes.add(fill_float, keep=True)
    uid = UUID(int=2**127 + 5)
    said = "é\x7f😀 ~ \\u0001"
    text = (
        f'{{"id":"server_\t{uid.hex}\t","progress":["{MARK}{number}","0.1","{MARK}"],'
        f'"again":["{MARK}{number}",null,"{MARK}"],"name":{json.dumps(said, ensure_ascii=False)}}}'
    )
    found = holes.filled(text.encode().replace(b"\t", ID_MARK.encode()))
    expected = {"id": ids.encode("server", uid), "progress": 0.1, "again": None, "name": said}
    assert found == json.dumps(expected, separators=(",", ":")).encode()


def test_a_broken_promise_is_no_answer() -> None:
    with pytest.raises(NotAsPromised):
        Holes().filled(f'{{"name":"{POISON}"}}'.encode())
