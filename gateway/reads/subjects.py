"""One statement for all subjects of one shape: scopes are asked with a subject whose keys are numbered slots.

A :class:`Slot` is an int that SQLAlchemy carries unchanged into the compiled statement's parameters, where it is told
apart from every other value and replaced, for each request, by what stands in that place of :func:`values`. A scope may
branch on all that a :class:`Shape` holds (admin or not, signed in or not, by key or session, in how many tenants with
which role) and on nothing else; a test compiles every scope twice with other numbers and compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from gateway.kernel.access import Role, Subject

_ROLES = (Role.READER, Role.MEMBER, Role.MANAGER)
_MOST_TENANTS = 64
_FIRST = 1_000_003
_MOST_KNOWN = 4096


class Slot(int):
    """A place in the values of a subject."""

    index: int

    @classmethod
    def of(cls, index: int, first: int = _FIRST) -> Slot:
        """The slot of a place."""
        made = cls(first + index)
        made.index = index
        return made


class Shape(NamedTuple):
    """What of a subject decides the text of a statement. ``tenants`` counts them by role, rounded up."""

    admin: bool
    signed_in: bool
    by_session: bool
    by_key: bool
    tenants: tuple[int, ...]


def shape(subject: Subject) -> Shape | None:
    """The shape of a subject; None when it is in too many tenants for one statement."""
    counts = dict.fromkeys(_ROLES, 0)
    for role in subject.roles.values():
        counts[role] += 1
    if len(subject.roles) > _MOST_TENANTS:
        return None
    return Shape(
        subject.admin,
        subject.signed_in,
        subject.session_id is not None,
        subject.api_key_id is not None,
        tuple(1 << (count - 1).bit_length() if count else 0 for count in counts.values()),
    )


def symbolic(shown: Shape, first: int = _FIRST) -> Subject:
    """A subject of that shape with a slot for each of its keys."""
    index = 3
    roles: dict[int, Role] = {}
    for role, count in zip(_ROLES, shown.tenants, strict=True):
        for _ in range(count):
            roles[Slot.of(index, first)] = role
            index += 1
    return Subject(
        user_id=Slot.of(0, first) if shown.signed_in else 0,
        user_uid=UUID(int=0) if shown.signed_in else None,
        admin=shown.admin,
        roles=roles,
        session_id=Slot.of(1, first) if shown.by_session else None,
        api_key_id=Slot.of(2, first) if shown.by_key else None,
    )


def values(subject: Subject, shown: Shape) -> list[int | None]:
    """The subject's keys by slot; the last tenant of a role fills what was rounded up."""
    found: list[int | None] = [subject.user_id, subject.session_id, subject.api_key_id]
    if not subject.roles:
        return found
    for role, count in zip(_ROLES, shown.tenants, strict=True):
        if count:
            keys = [key for key, held in subject.roles.items() if held is role]
            found += keys
            found += keys[-1:] * (count - len(keys))
    return found


class Who(NamedTuple):
    """A subject as plans know it."""

    subject: Subject
    shape: Shape
    values: Sequence[int | None]


class Shapes:
    """The shapes and keys of subjects that asked lately. All requests of one token carry the same roles."""

    def __init__(self) -> None:
        self._known: dict[int, Who] = {}

    def of(self, subject: Subject) -> Who | None:
        """Its shape and its keys by slot; None when it is in too many tenants for one statement."""
        known = self._known.get(id(subject.roles))
        if known is not None and _same(known.subject, subject):
            return known
        found = shape(subject)
        if found is None:
            return None
        who = Who(subject, found, tuple(values(subject, found)))
        if not subject.signed_in:
            return who  # nobody's roles are others' each time
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[id(subject.roles)] = who
        return who


def _same(known: Subject, subject: Subject) -> bool:
    """Whether they differ in nothing that a plan depends on; roles are compared by identity: they are never changed."""
    return (
        known.roles is subject.roles
        and known.user_id == subject.user_id
        and known.admin is subject.admin
        and known.session_id == subject.session_id
        and known.api_key_id == subject.api_key_id
    )
