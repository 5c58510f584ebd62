"""An event finds exactly those who want it, however they are arranged."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs import event as events
from gateway.jobs.event import Event
from gateway.kernel.access import Role, Subject
from resolvers.kernel.interests import Interest, Interests

UIDS = [UUID(int=number) for number in range(4)]
NOUNS = ["server", "network", "job"]
TENANTS = [*range(1, 100)]
AT = datetime(2026, 1, 1, tzinfo=UTC)

some_events = st.builds(
    lambda uid, noun, tenant: Event(
        at=AT, kind=f"{noun}.changed", noun=noun, object_uid=uid, tenant_id=tenant, version=2
    ),
    st.sampled_from(UIDS),
    st.sampled_from(NOUNS),
    st.none() | st.sampled_from(TENANTS[:5]),
)
filters = st.builds(
    Interest, st.none() | st.sampled_from(UIDS), st.none() | st.frozensets(st.sampled_from([*NOUNS, "no such noun"]))
)
subjects = st.builds(
    lambda tenants, admin: Subject(user_id=1, admin=admin, roles=dict.fromkeys(tenants, Role.READER)),
    st.frozensets(st.sampled_from(TENANTS[:6])) | st.just(frozenset(TENANTS)),
    st.booleans(),
)


def met(interest: Interest, subject: Subject) -> Interest:
    return interest if subject.admin else replace(interest, tenants=frozenset(subject.roles))


@given(
    st.lists(st.tuples(filters, subjects), max_size=12),
    st.frozensets(st.integers(0, 11)),
    st.lists(some_events, max_size=8),
)
def test_who_is_found_is_who_would_be_found_by_asking_all(
    people: list[tuple[Interest, Subject]], gone: frozenset[int], told: list[Event]
) -> None:
    interests: Interests[int] = Interests()
    for number, (asked, subject) in enumerate(people):
        interests.add(number, met(asked, subject))
    for number in gone:
        interests.discard(number)
    here = {number: each for number, each in enumerate(people) if number not in gone}
    for event in told:
        plainly = {
            number for number, (asked, subject) in here.items() if asked.wants(event) and events.visible(subject, event)
        }
        found = interests.of(event)
        assert set(found) == plainly
        assert len(found) == len(plainly), "nobody is told twice"
    assert set(interests) == here.keys()
    for number in here:
        interests.discard(number)
    assert not interests
    assert not any([interests._of_object, interests._of_tenant, interests._of_all]), "nothing is left behind"
