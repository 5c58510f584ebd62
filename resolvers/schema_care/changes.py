"""What differs between two schemas, as clients feel it: breaking, dangerous, safe, and what is newly deprecated.

Taking away what was deprecated and whose date has come is announced, hence not breaking. Everything is told by the
printed schemas alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from graphql import BreakingChange, DangerousChange, SafeChange, SafeChangeType, build_schema, find_schema_changes

from resolvers.schema_care.deprecation import Deprecation, deprecations, places, without


@dataclass(frozen=True, slots=True)
class Changes:
    """Sentences, sorted. ``removed`` are those that were announced and whose date has come."""

    breaking: tuple[str, ...]
    dangerous: tuple[str, ...]
    safe: tuple[str, ...]
    deprecated: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether anything differs that a client could notice."""
        return any((self.breaking, self.dangerous, self.safe, self.deprecated, self.removed))


def between(old: str, new: str, today: date) -> Changes:
    """What leads from one printed schema to another, judged on a day."""
    before = {each.place: each for each in deprecations(old)}
    gone = set(before) - places(new)
    due = {place for place in gone if _due(before[place], today)}
    expected = without(old, lambda each: each.place in due)
    breaking, dangerous, safe = [], [], []
    for each in find_schema_changes(build_schema(expected), build_schema(new)):
        match each:
            case BreakingChange():
                breaking.append(each.description)
            case DangerousChange():
                dangerous.append(each.description)
            case SafeChange() if each.type is not SafeChangeType.DESCRIPTION_CHANGED:
                safe.append(each.description)
            case _:
                pass
    deprecated = [f"{each.place}: {each.reason}" for each in deprecations(new) if each.place not in before]
    return Changes(_told(breaking), _told(dangerous), _told(safe), _told(deprecated), _told(due))


def _told(sentences: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(sentences)))


def _due(each: Deprecation, today: date) -> bool:
    return each.removal is not None and each.removal <= today
