"""GraphQL documents and variables drawn from the real schema: every field may appear, arguments are sometimes right,
sometimes of the right type and senseless, sometimes somebody else's.

Documents are valid (validation is tested elsewhere); what they carry need not make sense. Ids come from a given pool,
which holds those of another tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    GraphQLOutputType,
    GraphQLSchema,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
)
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

DEPTH, WIDTH = 4, 6
TEXTS = st.sampled_from(
    ["", " ", "a", "web-1", "\x00", "\u202e", "\U0001d518", "'; drop table user; --", "%", "_", "../../etc/passwd",
     "x" * 300, "http://127.0.0.1/", "http://198.51.100.7:65536/", "sim://nowhere", "10.0.0.0/8", "10.9.0.0/24", "::/0",
     "fe80::1", "10.0.0.5", "not an id", "server_0", "ssh-ed25519 AAAA", "ssh-rsa", "MDox", "LTE6LTE", "{{7*7}}"]
)  # fmt: skip
TIMES = st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59Z",
        "2026-01-01",
        "now",
        "2026-13-01T00:00Z",
    ]
)
INTEGERS = st.sampled_from([0, 1, 2, 3, 8, -1, 100, 101, 1000, 2**31 - 1, -(2**31)])
BIG = st.sampled_from([0, -1, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, "1", "x", 10**40])
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "Int": INTEGERS,
    "Float": st.sampled_from([0.0, -1.5, 1e308, 0.5, 4.0, 1e-320]),
    "Boolean": st.booleans(),
    "String": TEXTS,
    "DateTime": TIMES,
    "BigInt": BIG,
    "Decimal": TEXTS,
    "IPAddress": TEXTS,
    "CIDR": TEXTS,
    "MacAddress": TEXTS,
    "JSON": st.none() | st.booleans() | TEXTS,
}


@dataclass
class Drawing:
    """One document under way: what its operation declares, and the values of it."""

    draw: DrawFn
    schema: GraphQLSchema
    ids: Sequence[str]
    declared: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    names: int = 0

    def flip(self, of: int = 2) -> bool:
        """True once in ``of``."""
        return self.draw(st.integers(0, of - 1)) == 0

    def variable(self, kind: GraphQLInputType) -> str:
        """A new variable of that type with a value."""
        name = f"v{len(self.declared)}"
        self.declared.append(f"${name}: {kind}")
        self.values[name] = self.value(kind)
        return f"${name}"

    def value(self, kind: GraphQLInputType, depth: int = 0) -> Any:
        """A value that fits the type, whatever it may mean."""
        if isinstance(kind, GraphQLNonNull):
            return self.value(kind.of_type, depth)
        if isinstance(kind, GraphQLList):
            return [self.value(kind.of_type, depth + 1) for _ in range(self.draw(st.integers(0, 3)))]
        if isinstance(kind, GraphQLEnumType):
            return self.draw(st.sampled_from(sorted(kind.values)))
        if isinstance(kind, GraphQLInputObjectType):
            return self._object(kind, depth)
        if kind.name == "ID":
            return self.draw(st.sampled_from(self.ids)) if not self.flip(6) else self.draw(TEXTS)
        return self.draw(SCALARS[kind.name])

    def _object(self, kind: GraphQLInputObjectType, depth: int) -> dict[str, Any]:
        if kind.is_one_of:
            name = self.draw(st.sampled_from(sorted(kind.fields)))
            return {name: self.value(kind.fields[name].type, depth + 1)}
        return {
            name: self.value(each.type, depth + 1)
            for name, each in kind.fields.items()
            if is_required_input_field(each) or (depth < DEPTH and self.flip(3))
        }

    def selected(self, kind: GraphQLOutputType, depth: int = 0) -> str:
        """A selection of what the type offers; empty for a leaf."""
        named = get_named_type(kind)
        if is_leaf_type(named):
            return ""
        if is_abstract_type(named):
            some = self.draw(
                st.lists(st.sampled_from(self.schema.get_possible_types(named)), max_size=3, unique_by=lambda a: a.name)
            )
            parts = [f"... on {each.name} {self.selected(each, depth + 1)}" for each in some]
            return "{ " + " ".join(["__typename", *parts]) + " }"
        assert isinstance(named, GraphQLObjectType)
        usable = [
            (name, each)
            for name, each in named.fields.items()
            if depth < DEPTH or is_leaf_type(get_named_type(each.type))
        ]
        some_fields = self.draw(st.lists(st.sampled_from(usable), max_size=WIDTH, unique_by=lambda a: a[0]))
        return "{ " + " ".join(["__typename", *(self.called(n, each, depth) for n, each in some_fields)]) + " }"

    def called(self, name: str, what: GraphQLField, depth: int = 0) -> str:
        """A field with arguments and selection, under a name of its own: types may give one name two types."""
        given = [
            f"{key}: {self.variable(each.type)}"
            for key, each in what.args.items()
            if is_required_argument(each) or self.flip()
        ]
        self.names += 1
        arguments = f"({', '.join(given)})" if given else ""
        return f"a{self.names}: {name}{arguments} {self.selected(what.type, depth + 1)}"


@st.composite
def operations(draw: DrawFn, schema: GraphQLSchema, ids: Sequence[str], *, kind: str) -> tuple[str, dict[str, Any]]:
    """A document of that kind of operation (``query`` or ``mutation``), and its variables."""
    root = schema.query_type if kind == "query" else schema.mutation_type
    assert root is not None
    drawing = Drawing(draw, schema, ids)
    most = 3 if kind == "query" else 1
    fields = draw(st.lists(st.sampled_from(sorted(root.fields)), min_size=1, max_size=most, unique=True))
    body = " ".join(drawing.called(name, root.fields[name]) for name in fields)
    declared = f"({', '.join(drawing.declared)})" if drawing.declared else ""
    return f"{kind} Q{declared} {{ {body} }}", drawing.values
