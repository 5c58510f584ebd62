"""What is computed in Python, as JSON: the filling of a plan's holes for ``computed`` fields.

A computed field is a pure function of a few columns. Its filling makes those columns Python values again, lets the
same function work on them, and prints what it answers by the selection, leaf by leaf with the schema's own scalars.
Objects are printed where each selected field is an attribute or a plain method; anything that needs the request
(``info``), awaits, or takes arguments is :class:`Unplanned`. A ``rendered`` field is filled in the same way, but anew
for each request, with the operation's context.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MethodType
from typing import Any, Final
from uuid import UUID

from graphql import (
    GraphQLEnumType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    is_abstract_type,
)

from gateway.kernel import ids
from gateway.reads.errors import NotAsPromised
from gateway.reads.tree import Fill
from resolvers.planner.selection import Selection, Unplanned, strawberry_field

_encoded: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

Show = Callable[[Any], Any]
Read = Callable[[Any], Any]


class Columns:
    """A row of which only some columns are known. Methods and properties are those of its table's class."""

    def __init__(self, table: type[Any], values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)
        self.__dict__["_table"] = table

    def __getattr__(self, name: str) -> Any:
        found = inspect.getattr_static(self._table, name)
        if isinstance(found, property) and found.fget is not None:
            return found.fget(self)
        if inspect.isfunction(found):
            return MethodType(found, self)
        raise AttributeError(f"{name} is not among the columns that the field says it uses")


def filling(table: type[Any], names: tuple[str, ...], compute: Callable[[Any], Any], show: Show) -> Fill:
    """The filling that computes a field of these columns."""
    known = _knowing(table, names)
    return lambda values: printed(show(compute(known(values))))


def rendering(
    table: type[Any], names: tuple[str, ...], render: Callable[[Any, Any], Any], show: Show
) -> Callable[[list[Any], Any], bytes]:
    """The filling that renders a field of these columns for an operation's context."""
    known = _knowing(table, names)
    return lambda values, context: printed(show(render(context, known(values))))


def _knowing(table: type[Any], names: tuple[str, ...]) -> Callable[[list[Any]], Columns]:
    """Makes a row of columns as the statement prints them."""
    parsers = [_parser(table.__table__.c[name].type) for name in names]

    def known(values: list[Any]) -> Columns:
        return Columns(
            table,
            {
                name: None if value is None else parse(value)
                for name, parse, value in zip(names, parsers, values, strict=True)
            },
        )

    return known


def printed(value: Any) -> bytes:
    """JSON as the ordinary encoder prints it."""
    return _encoded(value).encode("ascii")


def _parser(kind: Any) -> Read:
    """Makes a column's JSON the value that the row would hold."""
    stored = getattr(kind, "impl", kind)
    if getattr(kind, "enum_class", None) is not None:
        return lambda value: kind.enum_class[value]
    expected = _python_type(stored)
    if expected is datetime:
        return datetime.fromisoformat
    if expected is UUID:
        return ids.of_printed
    return float if expected is float else lambda value: value


def _python_type(kind: Any) -> Any:
    try:
        return kind.python_type
    except NotImplementedError:
        return object


def shower(core: Any, selection: Selection) -> Show:
    """Prints a resolver's answer of a GraphQL type. Raises Unplanned."""
    if isinstance(core, GraphQLNonNull):
        return _promised(shower(core.of_type, selection))
    if isinstance(core, GraphQLList):
        item = shower(core.of_type, selection)
        return lambda value: None if value is None else [item(each) for each in value]
    if isinstance(core, GraphQLScalarType | GraphQLEnumType):
        leaf = core.coerce_output_value
        return lambda value: None if value is None else leaf(value)
    if isinstance(core, GraphQLObjectType):
        return _object(core, selection)
    if is_abstract_type(core):
        return _one_of(core, selection)
    raise Unplanned(str(core))


def _promised(inner: Show) -> Show:
    def show(value: Any) -> Any:
        found = inner(value)
        if found is None:
            raise NotAsPromised
        return found

    return show


def _object(core: GraphQLObjectType, selection: Selection) -> Show:
    fields: list[tuple[str, Read, Show]] = []
    for name, inner in selection.below(core).items():
        if inner.name == "__typename":
            fields.append((name, _named(core.name), _itself))
            continue
        definition = core.fields[inner.name]
        fields.append((name, _reader(core, inner), shower(definition.type, inner)))
    return lambda value: None if value is None else {name: show(read(value)) for name, read, show in fields}


def _named(name: str) -> Read:
    return lambda _root: name


def _itself(value: Any) -> Any:
    return value


def _reader(core: GraphQLObjectType, selection: Selection) -> Read:
    field = strawberry_field(core, selection.name)
    resolver = field.base_resolver
    if field.extensions or core.fields[selection.name].args:
        raise Unplanned(f"{core.name}.{selection.name}")
    if resolver is None:
        name = field.python_name
        return lambda root: getattr(root, name)
    if resolver.is_async or resolver.info_parameter is not None or len(resolver.signature.parameters) != 1:
        raise Unplanned(f"{core.name}.{selection.name}")
    function: Read = resolver.wrapped_func
    return function


@dataclass(frozen=True, slots=True)
class _Possible:
    """What an abstract type's object may be, and how each is printed."""

    kind: type[Any]
    show: Show


def _one_of(core: Any, selection: Selection) -> Show:
    found = [
        _Possible(each.extensions["strawberry-definition"].origin, _object(each, selection))
        for each in selection.possible(core)
    ]

    def show(value: Any) -> Any:
        if value is None:
            return None
        for each in found:
            if type(value) is each.kind:
                return each.show(value)
        raise NotAsPromised

    return show
