"""Queries drawn from the whole real schema, with arguments from a cloud that is there.

Every root field, at random depth: plain fields under their own names and under aliases, the same field twice, named
fragments used once and more often, inline fragments on objects and on interfaces, ``__typename``, ``@skip`` and
``@include`` by literals and by variables, arguments as literals, as variables and as variables within literals, with
defaults, null and left out. Every document is valid: what is drawn under one response name in one place is one field
with one list of arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_interface_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
)
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

DEPTH, WIDTH = 5, 5
SIZES = (0, 1, 2, 3, 5, 20, 100)
WRONG_SIZES = (-1, 101, 2**31 - 1)
JUNK = ("", "x", "MDox", "W10", "server_0", "server_01m83jsfbzemw8pq7sx908whzc", "é_0", "\u0001")
MOMENTS = ("2026-02-28T00:00:00Z", "2026-02-09T12:00:00.25Z", "2026-03-01T14:00:00+02:00", "1999-01-01T00:00:00Z")
VALUES: dict[str, Sequence[Any]] = {
    "Boolean": (True, False),
    "Int": SIZES,
    "BigInt": SIZES,
    "Float": (0.0, 1.5, 2),
    "DateTime": MOMENTS,
}
OFTEN = 4
"""A root that reads stored objects is drawn so many times as often as another."""


@dataclass(frozen=True, slots=True, repr=False)
class Terrain:
    """What arguments are drawn from: public ids by prefix, words of all kinds, and cursors by root field."""

    schema: GraphQLSchema
    ids: Mapping[str, Sequence[str]]
    words: Sequence[str]
    cursors: Mapping[str, Sequence[str]]

    def __repr__(self) -> str:
        return f"<terrain of {len(self.words)} words>"

    @property
    def every_id(self) -> list[str]:
        """All ids."""
        return [each for some in self.ids.values() for each in some]


@dataclass(slots=True)
class Taken:
    """A response name in one place: its field as it stands there, its type, and the place below it."""

    text: str
    kind: str
    below: Place


@dataclass(slots=True)
class Place:
    """A selection set with all that is merged into it. ``prefix`` keeps a fragment's names apart from its places'."""

    prefix: str = ""
    names: dict[str, Taken] = field(default_factory=dict)


@dataclass(slots=True)
class Drawing:
    """One document under way."""

    draw: DrawFn
    terrain: Terrain
    declared: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    fragments: list[str] = field(default_factory=list)
    again: dict[str, list[str]] = field(default_factory=dict)
    names: int = 0

    def chance(self, of: int) -> bool:
        """True once in ``of``."""
        return bool(self.draw(st.integers(1, of)) == of)

    def one(self, some: Sequence[Any]) -> Any:
        """One of them."""
        return self.draw(st.sampled_from(some))

    def fresh(self, letter: str) -> str:
        """A name that nothing else has."""
        self.names += 1
        return f"{letter}{self.names}"

    # ------------------------------------------------------------------------------------------ selections

    def operation(self) -> str:
        """The document."""
        root = self.terrain.schema.query_type
        assert root is not None
        stored = [name for name in root.fields if name in self.terrain.cursors or "id" in root.fields[name].args]
        weighted = sorted(root.fields) + sorted(stored) * OFTEN + ["node", "nodes"] * OFTEN
        place = Place()
        parts = [self.field(name, root.fields[name], place, 0) for name in self.draw(
            st.lists(st.sampled_from(weighted), min_size=1, max_size=3)
        )]  # fmt: skip
        if self.chance(6):
            parts.insert(0, "__typename")
        declared = f"({', '.join(self.declared)})" if self.declared else ""
        head = "" if not declared and self.chance(3) else f"query Q{declared} "
        return "\n".join([f"{head}{{ {' '.join(parts)} }}", *self.fragments])

    def selection(self, kind: Any, place: Place, depth: int) -> str:
        """What is asked of a type, in braces."""
        named = get_named_type(kind)
        parts = ["__typename"] if self.chance(5) else []
        if is_interface_type(named):  # the schema has no unions
            parts += [self.field(name, named.fields[name], place, depth) for name in named.fields if self.chance(2)]
            possible = self.terrain.schema.get_possible_types(named)
            for each in self.draw(st.lists(st.sampled_from(possible), max_size=3, unique_by=lambda a: a.name)):
                parts.append(f"... on {each.name} {self.directive()}{self.selection(each, place, depth + 1)}")
        else:
            parts += self.members(named, place, depth)
        return f"{{ {' '.join(parts or ['__typename'])} }}"

    def members(self, kind: GraphQLObjectType, place: Place, depth: int) -> list[str]:
        """Some fields of an object, plain or by fragments."""
        fits = [name for name, each in kind.fields.items() if depth < DEPTH or is_leaf_type(get_named_type(each.type))]
        wanted = self.draw(st.lists(st.sampled_from(fits), max_size=WIDTH)) if fits else []
        if "nodes" in fits and depth < DEPTH and not self.chance(4):
            wanted.append("nodes")
        parts = [self.field(name, kind.fields[name], place, depth) for name in wanted]
        if not parts or depth >= DEPTH:
            return parts
        if self.chance(8):
            on = f"on {kind.name} " if self.chance(2) else ""
            inner = f"{{ {' '.join(parts)} }}"
            parts = [f"... {on}{self.directive()}{inner}", *self.outside(kind, place, depth)]
        elif self.chance(8):
            name = self.fresh("F")
            self.fragments.append(f"fragment {name} on {kind.name} {{ {' '.join(parts)} }}")
            parts = [f"...{name} {self.directive()}", *self.outside(kind, place, depth)]
        if self.chance(8):
            parts.append(f"...{self.common(kind, depth)} {self.directive()}")
        return parts

    def outside(self, kind: GraphQLObjectType, place: Place, depth: int) -> list[str]:
        """A field beside a fragment, maybe the same that is within it."""
        known = [name for name in kind.fields if place.prefix + name in place.names][:1]
        return [self.field(name, kind.fields[name], place, depth) for name in known if self.chance(2)]

    def common(self, kind: GraphQLObjectType, depth: int) -> str:
        """A fragment that may be spread wherever its type is."""
        known = self.again.setdefault(kind.name, [])
        if known and self.chance(2):
            return str(self.one(known))
        name = self.fresh("G")
        parts = self.members(kind, Place(prefix=f"{name}_"), max(depth, DEPTH - 1)) or ["__typename"]
        self.fragments.append(f"fragment {name} on {kind.name} {{ {' '.join(parts)} }}")
        known.append(name)
        return name

    def field(self, name: str, what: GraphQLField, place: Place, depth: int) -> str:
        """A field. One that is there already under that name is asked for once more, in the same words."""
        key = place.prefix + name
        alias = self.chance(8)
        taken = place.names.get(key)
        if alias or (taken is not None and taken.kind != str(what.type)):
            key, taken = place.prefix + self.fresh("a"), None
        if taken is None:
            taken = place.names[key] = Taken(name + self.arguments(name, what, depth), str(what.type), Place())
        shown = taken.text if key == name else f"{key}: {taken.text}"
        leaf = is_leaf_type(get_named_type(what.type))
        below = "" if leaf else " " + self.selection(what.type, taken.below, depth + 1)
        return f"{shown} {self.directive()}{below}"

    def directive(self) -> str:
        """Sometimes @skip or @include, or both."""
        if not self.chance(12):
            return ""
        given = [f"@{name}(if: {self.switch()})" for name in ("skip", "include") if self.chance(2)]
        return "".join(f"{each} " for each in given)

    def switch(self) -> str:
        """A Boolean! for a directive."""
        if self.chance(2):
            return str(self.one(("true", "false")))
        default = self.one(("", " = true", " = false"))
        name = self.fresh("b")
        self.declared.append(
            f"${name}: Boolean{'' if default else '!'}{default}" if self.chance(2) else f"${name}: Boolean!{default}"
        )
        if not default or self.chance(2):
            self.values[name] = self.one((True, False))
        return f"${name}"

    # ------------------------------------------------------------------------------------------ arguments

    def arguments(self, name: str, what: GraphQLField, depth: int) -> str:
        """The arguments of a field, in parentheses."""
        some = dict(what.args)
        given: list[str] = []
        if "last" in some:
            given += self.page(name, some, depth)
            some = {key: each for key, each in some.items() if key in ("filter", "orderBy")}
        period = self.period() if {"start", "end"} <= some.keys() else {}
        given += [f"{key}: {self.argument(some.pop(key).type, value)}" for key, value in period.items()]
        for key, each in some.items():
            if is_required_argument(each) or self.chance(3):
                given.append(f"{key}: {self.argument(each.type, self.value(each.type, name, key))}")
        return f"({', '.join(given)})" if given else ""

    def page(self, name: str, args: Mapping[str, Any], depth: int) -> list[str]:
        """first, last, after and before: mostly sensible."""
        sizes = SIZES if depth == 0 else SIZES[:-2]
        found: dict[str, Any] = {}
        way = self.draw(st.integers(0, 15))
        if way < 7:
            found["first"] = self.one(sizes)
        elif way < 11:
            found["last"] = self.one(sizes)
        elif way == 11:
            found = {"first": self.one(sizes), "last": self.one((None, 1))}
        elif way == 12:
            found[self.one(("first", "last"))] = self.one(WRONG_SIZES)
        cursors = self.terrain.cursors.get(name, ())
        for key in ("after", "before"):
            if cursors and self.chance(5):
                found[key] = self.one(cursors) if not self.chance(8) else self.one(JUNK)
        return [f"{key}: {self.argument(args[key].type, value)}" for key, value in found.items()]

    def argument(self, kind: GraphQLInputType, value: Any) -> str:
        """A value where one of that type is wanted: literally or by a variable."""
        if self.chance(2):
            return self.literal(kind, value)
        name = self.fresh("v")
        shown, default = str(kind), ""
        nullable = not isinstance(kind, GraphQLNonNull)
        if nullable and value is not None and self.chance(4):
            shown += "!"
        elif self.chance(3):
            default = f" = {self.plain(kind, value)}"
            shown = shown.removesuffix("!") if self.chance(2) else shown
        self.declared.append(f"${name}: {shown}{default}")
        if not default or self.chance(3):
            self.values[name] = value
        if nullable and not default and not shown.endswith("!") and self.chance(6):
            self.values.pop(name, None)
        return f"${name}"

    def literal(self, kind: GraphQLInputType, value: Any) -> str:
        """A literal, in which variables may stand."""
        inner = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
        if isinstance(inner, GraphQLInputObjectType) and isinstance(value, dict) and not inner.is_one_of:
            return "{" + ", ".join(f"{k}: {self.argument(inner.fields[k].type, v)}" for k, v in value.items()) + "}"
        return self.plain(kind, value)

    def plain(self, kind: GraphQLInputType, value: Any) -> str:
        """A literal without variables."""
        inner = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
        if value is None:
            return "null"
        if isinstance(inner, GraphQLList):
            if not isinstance(value, list):
                return self.plain(inner.of_type, value)
            return "[" + ", ".join(self.plain(inner.of_type, each) for each in value) + "]"
        if isinstance(inner, GraphQLInputObjectType):
            return "{" + ", ".join(f"{k}: {self.plain(inner.fields[k].type, v)}" for k, v in value.items()) + "}"
        return str(value) if isinstance(inner, GraphQLEnumType) else json.dumps(value, ensure_ascii=False)

    def period(self) -> dict[str, str]:
        """A start and an end, mostly in this order."""
        some = [self.one(MOMENTS) for _ in range(2)]
        return dict(zip(("start", "end"), some if self.chance(4) else sorted(some), strict=True))

    def value(self, kind: GraphQLInputType, root: str, key: str) -> Any:
        """A value of that type for an argument or input field of that name; null where it may be, sometimes."""
        if isinstance(kind, GraphQLNonNull):
            return self.value_of(kind.of_type, root, key)
        return None if self.chance(12) else self.value_of(kind, root, key)

    def value_of(self, kind: Any, root: str, key: str) -> Any:
        """A value that is not null."""
        if isinstance(kind, GraphQLList):  # one alone may stand for a list
            some = [self.value(kind.of_type, root, key) for _ in range(self.draw(st.integers(0, 4)))]
            return some[0] if len(some) == 1 and some[0] is not None and self.chance(3) else some
        if isinstance(kind, GraphQLEnumType):
            return self.one(sorted(kind.values))
        if isinstance(kind, GraphQLInputObjectType):
            return self.object(kind, root)
        if kind.name == "ID":
            return self.id(root, key)
        pool = VALUES.get(kind.name, self.terrain.words)
        return self.one(JUNK if kind.name == "String" and self.chance(8) else pool)

    def object(self, kind: GraphQLInputObjectType, root: str) -> dict[str, Any]:
        """An input object: one member for a filter, mostly."""
        if kind.is_one_of:
            name = self.one(sorted(kind.fields))
            return {name: self.value_of(get_named_type(kind.fields[name].type), root, name)}
        needed = [name for name, each in kind.fields.items() if is_required_input_field(each)]
        others = sorted(set(kind.fields) - set(needed))
        some = self.draw(st.lists(st.sampled_from(others), max_size=2, unique=True)) if others else []
        period = self.period() if {"start", "end"} <= set(needed) else {}
        return {name: period.get(name) or self.value(kind.fields[name].type, root, name) for name in [*needed, *some]}

    def id(self, root: str, key: str) -> str:
        """Mostly an id of what is wanted, then any id, then none at all."""
        wanted = root if key in ("id", "ids") else key.removesuffix("Id")
        prefix = "".join(f"_{each.lower()}" if each.isupper() else each for each in wanted)
        way = self.draw(st.integers(0, 9))
        if way == 0:
            return str(self.one(JUNK))
        found = self.terrain.ids.get(prefix)
        return str(self.one(found if found and way > 1 else self.terrain.every_id))


@st.composite
def operations(draw: DrawFn, terrain: Terrain) -> tuple[str, dict[str, Any]]:
    """A document with one query, and its variables."""
    drawing = Drawing(draw, terrain)
    document = drawing.operation()
    return document, drawing.values
