"""The schema that runs, without what is deprecated: what ``/graphql?future`` validates and executes against.

Its types are shallow copies of the running schema's, with the same resolvers: nothing is declared twice. A document
that fits it will fit the releases in which what is deprecated is gone. An object that still holds a deprecated value of
an enum answers with an error at that field, for there is no word for it any more. The printed form is
:func:`resolvers.schema_care.deprecation.future`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from graphql import (
    GraphQLDirective,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    is_introspection_type,
    is_specified_directive,
    is_specified_scalar_type,
)

T = TypeVar("T")
_Retype = Callable[[Any], Any]


def future_of(core: GraphQLSchema) -> GraphQLSchema:
    """The schema without anything deprecated; the same object when nothing is."""
    if not any(_deprecated(each) for each in core.type_map.values()):
        return core
    types = {
        name: _copied(each)
        for name, each in core.type_map.items()
        if not is_introspection_type(each) and not is_specified_scalar_type(each)
    }

    def retyped(kind: Any) -> Any:
        if isinstance(kind, GraphQLList | GraphQLNonNull):
            return type(kind)(retyped(kind.of_type))
        return types.get(kind.name, kind)

    for each in types.values():
        _prune(each, retyped)
    query, mutation, subscription = (None if each is None else retyped(each) for each in _roots(core))
    made = GraphQLSchema(
        query,
        mutation,
        subscription,
        types=list(types.values()),
        directives=[each if is_specified_directive(each) else _directive(each, retyped) for each in core.directives],
        description=core.description,
        extensions=core.extensions,
        assume_valid=True,
    )
    if hasattr(core, "_strawberry_schema"):
        # How strawberry's Info finds its schema.
        made._strawberry_schema = core._strawberry_schema  # type: ignore[attr-defined]  # noqa: SLF001
    return made


def _roots(core: GraphQLSchema) -> tuple[GraphQLObjectType | None, ...]:
    return core.query_type, core.mutation_type, core.subscription_type


def _deprecated(kind: GraphQLNamedType) -> bool:
    parts: Mapping[str, Any] = getattr(kind, "fields", {}) or getattr(kind, "values", {})
    return any(
        each.deprecation_reason is not None or len(_kept(getattr(each, "args", {}))) < len(getattr(each, "args", {}))
        for each in parts.values()
    )


def _kept(parts: Mapping[str, T]) -> dict[str, T]:
    return {name: each for name, each in parts.items() if cast("Any", each).deprecation_reason is None}


def _copied(thing: T) -> T:
    """A shallow copy of any class: graphql-core's own copies would call constructors that strawberry has changed."""
    made = object.__new__(type(thing))
    made.__dict__.update(thing.__dict__)
    return made


def _prune(kind: GraphQLNamedType, retyped: _Retype) -> None:
    match kind:
        case GraphQLObjectType() | GraphQLInterfaceType():
            kind.interfaces = tuple(retyped(each) for each in kind.interfaces)
            kind.fields = {name: _field(each, retyped) for name, each in _kept(kind.fields).items()}
        case GraphQLInputObjectType():
            kind.fields = {name: _part(each, retyped) for name, each in _kept(kind.fields).items()}
        case GraphQLUnionType():
            kind.types = tuple(retyped(each) for each in kind.types)
        case GraphQLEnumType():
            kind.values = _kept(kind.values)
            kind.__dict__.pop("_value_lookup", None)
        case _:
            pass


def _field(field: Any, retyped: _Retype) -> Any:
    made = _part(field, retyped)
    made.args = {name: _part(each, retyped) for name, each in _kept(field.args).items()}
    return made


def _part(part: T, retyped: _Retype) -> T:
    """A field, an argument or an input field, of the type that now has the name of its own."""
    made = _copied(part)
    made.__dict__["type"] = retyped(part.__dict__["type"])
    return made


def _directive(directive: GraphQLDirective, retyped: _Retype) -> GraphQLDirective:
    made = _copied(directive)
    made.args = {name: _part(each, retyped) for name, each in directive.args.items()}
    return made
