"""A filtered list as a statement that fits every value of its filter: comparisons, apart from what they compare with.

SQLAlchemy tells the two apart for its own cache of compiled statements; the same key decides here whether a plan that
was compiled for one value serves another, and the values are bound like every other input.

Invariant: two selects of the same structure differ in their taken values only. A subject's slots are not taken.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter
from sqlalchemy.sql.visitors import replacement_traverse

from gateway.reads.errors import Unspelt
from gateway.reads.subjects import Slot
from gateway.reads.tree import Given


@dataclass(frozen=True, slots=True)
class Taken:
    """A select's structure and the values in it."""

    structure: Hashable
    values: tuple[Any, ...]


def taken(select: Any) -> Taken:
    """What a list's select consists of. Raises Unspelt when SQLAlchemy cannot tell."""
    key = select._generate_cache_key()  # noqa: SLF001 - there is no public way to it
    if key is None:
        raise Unspelt("a filter without a structure")
    values: list[Any] = []
    counts: list[int] = []
    for each in key.bindparams:
        found = _values(each)
        values += found
        counts.append(len(found))
    return Taken((key.key, tuple(counts)), tuple(values))


def opened(select: Any, number: int) -> Any:
    """The same select with parts of input ``number`` in place of its values, in their order."""
    key = select._generate_cache_key()  # noqa: SLF001 - as above
    places: dict[str, int] = {}
    count = 0
    for each in key.bindparams:
        places[each.key] = count
        count += len(_values(each))

    def replaced(element: Any, **_: Any) -> Any:
        if not isinstance(element, BindParameter) or element.key not in places:
            return None
        size = len(_values(element))
        if not size:
            return None
        marks = [Given(number, places[element.key] + part) for part in range(size)]
        filled: Any = element
        return filled._with_value(marks if element.expanding else marks[0], maintain_key=True)  # noqa: SLF001 - as above

    return replacement_traverse(select, {}, replaced)


def _values(parameter: Any) -> list[Any]:
    """The values of a parameter that a request may change."""
    value = parameter.effective_value
    found = list(value) if parameter.expanding else [value]
    return [] if any(isinstance(each, Slot) for each in found) else found
