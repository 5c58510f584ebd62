"""What the schema gives up, and when: every reason reads "Use `x`. Removal on YYYY-MM-DD.", and the date is kept.

Works on the printed schema alone, so it judges the released text and the present one alike. ``future`` is the schema
as it will be once everything deprecated is gone: clients that fit it need not fear the next release.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from graphql import (
    REMOVE,
    DirectiveNode,
    DocumentNode,
    EnumTypeDefinitionNode,
    EnumValueDefinitionNode,
    FieldDefinitionNode,
    InputObjectTypeDefinitionNode,
    InputValueDefinitionNode,
    InterfaceTypeDefinitionNode,
    Node,
    ObjectTypeDefinitionNode,
    StringValueNode,
    TypeDefinitionNode,
    Visitor,
    build_ast_schema,
    lexicographic_sort_schema,
    parse,
    print_schema,
    visit,
)

REASON: Final = re.compile(r"Use `(?P<instead>[^`]+)`\. Removal on (?P<date>\d{4}-\d{2}-\d{2})\.")


@dataclass(frozen=True, slots=True)
class Deprecation:
    """One thing that goes. ``place`` is as in ``Type.field(argument)``; ``removal`` is None where the reason is odd."""

    place: str
    reason: str
    removal: date | None


def deprecations(sdl: str) -> list[Deprecation]:
    """Everything deprecated in a printed schema, by place."""
    return sorted(_all(parse(sdl)), key=lambda each: each.place)


def places(sdl: str) -> set[str]:
    """Every field, argument, input field and enum value of a printed schema, as ``Type.field(argument)``."""
    return {place for owner, parts in _owners(parse(sdl)) for place, _ in _parts(owner, parts)}


def future(sdl: str) -> str:
    """The printed schema without anything deprecated."""
    return without(sdl, lambda _each: True)


def without(sdl: str, gone: Callable[[Deprecation], bool]) -> str:
    """The printed schema without those deprecated things of which ``gone`` is true."""
    kept = visit(parse(sdl), _Pruning(gone))
    return print_schema(lexicographic_sort_schema(build_ast_schema(kept))) + "\n"


def _all(document: DocumentNode) -> Iterator[Deprecation]:
    for owner, parts in _owners(document):
        for place, part in _parts(owner, parts):
            found = _deprecation(place, part)
            if found is not None:
                yield found


def _owners(document: DocumentNode) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for each in document.definitions:
        match each:
            case ObjectTypeDefinitionNode() | InterfaceTypeDefinitionNode() | InputObjectTypeDefinitionNode():
                yield each.name.value, tuple(each.fields or ())
            case EnumTypeDefinitionNode():
                yield each.name.value, tuple(each.values or ())
            case _:
                pass


def _parts(owner: str, parts: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for part in parts:
        place = f"{owner}.{part.name.value}"
        yield place, part
        if isinstance(part, FieldDefinitionNode):
            for argument in part.arguments or ():
                yield f"{place}({argument.name.value})", argument


def _deprecation(place: str, part: Any) -> Deprecation | None:
    if not isinstance(part, FieldDefinitionNode | InputValueDefinitionNode | EnumValueDefinitionNode):
        return None
    directive = next((each for each in part.directives or () if each.name.value == "deprecated"), None)
    if directive is None:
        return None
    reason = _reason(directive)
    return Deprecation(place, reason, _removal(reason))


def _reason(directive: DirectiveNode) -> str:
    for argument in directive.arguments or ():
        if argument.name.value == "reason" and isinstance(argument.value, StringValueNode):
            return argument.value.value
    return ""


def _removal(reason: str) -> date | None:
    found = REASON.fullmatch(reason)
    if found is None:
        return None
    try:
        return date.fromisoformat(found["date"])
    except ValueError:
        return None


class _Pruning(Visitor):
    """Leaves deprecated things out. ``place`` is where the visit is: the type, and the field within it."""

    def __init__(self, gone: Callable[[Deprecation], bool]) -> None:
        super().__init__()
        self._gone = gone
        self._place: list[str] = []

    def enter(self, node: Node, *_: Any) -> Any:
        if isinstance(node, TypeDefinitionNode):
            self._place = [node.name.value]
        if not isinstance(node, FieldDefinitionNode | InputValueDefinitionNode | EnumValueDefinitionNode):
            return None
        if not self._place:
            return None  # an argument of a directive's definition
        found = _deprecation(self._named(node.name.value), node)
        if found is not None and self._gone(found):
            return REMOVE
        if isinstance(node, FieldDefinitionNode):
            self._place.append(node.name.value)
        return None

    def leave(self, node: Node, *_: Any) -> None:
        if isinstance(node, FieldDefinitionNode):
            self._place.pop()
        elif isinstance(node, TypeDefinitionNode):
            self._place = []

    def _named(self, name: str) -> str:
        owner, *field = self._place
        return f"{owner}.{field[0]}({name})" if field else f"{owner}.{name}"
