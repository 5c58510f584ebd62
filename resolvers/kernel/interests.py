"""Who wants to hear of which events, arranged so that an event meets those alone who may see it: whatever happens in
one tenant costs nothing to the subscribers of a thousand others.

Invariant: who is found for an event are exactly those whose :meth:`Interest.wants` it. Whether somebody may see it is
asked again by whoever tells them: what is kept here says where to look, and is no permission.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

from gateway.jobs.event import Event

S = TypeVar("S", bound=Hashable)

_MOST_PLACES: Final = 64
"""Who reads more tenants than this is asked about every event, so that an interest never takes much room."""


@dataclass(frozen=True, slots=True)
class Interest:
    """Events of one object, of some nouns, of some tenants (not those of none); None does not restrict."""

    object_uid: UUID | None = None
    nouns: frozenset[str] | None = None
    tenants: frozenset[int] | None = None

    def wants(self, event: Event) -> bool:
        """Whether this is one of them."""
        return (
            (self.object_uid is None or event.object_uid == self.object_uid)
            and (self.nouns is None or event.noun in self.nouns)
            and (self.tenants is None or event.tenant_id in self.tenants)
        )


class Interests(Generic[S]):
    """Subscribers by what they are interested in."""

    def __init__(self) -> None:
        self._interest: dict[S, Interest] = {}
        self._of_object: dict[Hashable, dict[S, Interest]] = defaultdict(dict)
        self._of_tenant: dict[Hashable, dict[S, Interest]] = defaultdict(dict)
        self._of_all: dict[S, Interest] = {}

    def add(self, who: S, interest: Interest) -> None:
        """From now on; once for each."""
        self._interest[who] = interest
        for place, key in self._places(interest):
            place[key][who] = interest

    def discard(self, who: S) -> None:
        """No longer."""
        interest = self._interest.pop(who, None)
        for place, key in self._places(interest) if interest is not None else ():
            del place[key][who]
            if not place[key] and place[key] is not self._of_all:
                del place[key]

    def of(self, event: Event) -> list[S]:
        """Those who want this event."""
        some = (self._of_object.get(event.object_uid), self._of_tenant.get(event.tenant_id), self._of_all)
        return [who for each in some if each for who, interest in each.items() if interest.wants(event)]

    def __iter__(self) -> Iterator[S]:
        return iter(list(self._interest))

    def __len__(self) -> int:
        return len(self._interest)

    def _places(self, interest: Interest) -> list[tuple[dict[Hashable, dict[S, Interest]], Hashable]]:
        if interest.object_uid is not None:
            return [(self._of_object, interest.object_uid)]
        if interest.tenants is not None and len(interest.tenants) <= _MOST_PLACES:
            return [(self._of_tenant, each) for each in interest.tenants]
        return [({None: self._of_all}, None)]
