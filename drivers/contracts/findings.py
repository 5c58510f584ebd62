"""What a run of the contract found a driver to do and not to do: the matrix as it was seen, not as it was declared.

A check says so at the end of the way that it took: that a capability works, or that a call for it was refused by its
name and changed nothing, or that the connection has no such verbs. What no check came to is in neither set; a driver
under test whose host cannot show it (no second host, no machine of somebody else's) leaves it open.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from drivers.api import Capability


@dataclass(slots=True)
class Findings:
    """Of one run, on one host."""

    works: set[Capability] = field(default_factory=set)
    lacks: set[Capability] = field(default_factory=set)

    @property
    def open(self) -> frozenset[Capability]:
        """What was neither seen to work nor seen to be refused."""
        return frozenset(Capability) - self.works - self.lacks

    def contradictions(self, published: Collection[Capability]) -> list[str]:
        """Where the run differs from a published matrix, one line each. What is open contradicts nothing."""
        hidden = [f"{each} works, and the matrix says that it is missing" for each in self.works - set(published)]
        promised = [f"{each} is missing, and the matrix says that it works" for each in self.lacks & set(published)]
        both = [f"{each} works and is refused" for each in self.works & self.lacks]
        return sorted([*hidden, *promised, *both])
