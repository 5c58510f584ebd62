"""GraphQL documents and variables drawn from the real schema: every field may appear, arguments are sometimes right,
sometimes of the right type and senseless, sometimes somebody else's.

Documents are valid (validation is tested elsewhere); what they carry need not make sense. Ids come from a given pool,
which holds those of another tenant. Half of the documents are *sensible*: ids are of the noun that a name asks for,
values are small and plain, little is given that need not be, so that a good part of them is let through and sets jobs
in motion.
"""

from __future__ import annotations

import re
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
    OperationType,
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
NOT_SENSIBLE = frozenset({"idempotencyKey", "expectedVersion", "userData", "availabilityZone"})
SENSIBLE = frozenset({"imageId", "sizeGib", "networks", "networkId"})
RANGES = st.sampled_from(["10.0.0.0/24", "10.9.0.0/24", "192.168.7.0/28"])
CALLED: dict[str, st.SearchStrategy[Any]] = {
    "cidr": RANGES,
    "url": st.just("http://127.0.0.1:9/nothing"),  # nobody may be sent there: the worker refuses
    "macAddress": st.just("02:00:00:00:00:07"),
    "mtu": st.just(1400),
}
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "Int": st.sampled_from([1, 2, 3]),
    "String": st.sampled_from(["a", "web-1", "blue"]),
    "CIDR": RANGES,
    "IPAddress": st.sampled_from(["10.0.0.5", "10.0.0.77"]),
    "DateTime": st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"]),
    "BigInt": st.sampled_from([1, 2**20]),
}
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
    own: Sequence[str] = ()
    sensible: bool = False
    about: str = ""

    def flip(self, of: int = 2) -> bool:
        """True once in ``of``."""
        return self.draw(st.integers(0, of - 1)) == 0

    def variable(self, kind: GraphQLInputType, called: str) -> str:
        """A new variable of that type with a value for what is called so."""
        name = f"v{len(self.declared)}"
        self.declared.append(f"${name}: {kind}")
        self.values[name] = self.value(kind, called)
        return f"${name}"

    def value(self, kind: GraphQLInputType, called: str, depth: int = 0) -> Any:
        """A value that fits the type, whatever it may mean."""
        if isinstance(kind, GraphQLNonNull):
            return self.value(kind.of_type, called, depth)
        if isinstance(kind, GraphQLList):
            return [self.value(kind.of_type, called, depth + 1) for _ in range(self.draw(st.integers(0, 3)))]
        if isinstance(kind, GraphQLEnumType):
            return self.draw(st.sampled_from(sorted(kind.values)))
        if isinstance(kind, GraphQLInputObjectType):
            return self._object(kind, depth)
        return self._id(called) if kind.name == "ID" else self._scalar(kind.name, called)

    def _scalar(self, kind: str, called: str) -> Any:
        plain = {**SCALARS, **PLAIN} if self.sensible else SCALARS
        return self.draw(CALLED[called] if self.sensible and called in CALLED else plain[kind])

    def _id(self, called: str) -> str:
        noun = self.about if called in {"id", "ids"} else re.sub(r"Ids?$", "", called)
        if self.sensible and not self.flip(8):
            fitting = [each for each in self.own or self.ids if _is_of(each, noun)]
            if fitting:
                return self.draw(st.sampled_from(fitting))
        return self.draw(st.sampled_from(self.ids)) if not self.flip(6) else self.draw(TEXTS)

    def _object(self, kind: GraphQLInputObjectType, depth: int) -> dict[str, Any]:
        if kind.is_one_of:
            name = self.draw(st.sampled_from(sorted(kind.fields)))
            return {name: self.value(kind.fields[name].type, name, depth + 1)}
        return {
            name: self.value(each.type, name, depth + 1)
            for name, each in kind.fields.items()
            if is_required_input_field(each) or self._also(name, depth)
        }

    def _also(self, name: str, depth: int) -> bool:
        """Whether to give what need not be given."""
        if self.sensible and name in NOT_SENSIBLE | SENSIBLE:
            return name in SENSIBLE
        return depth < DEPTH and self.flip(12 if self.sensible else 3)

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
            f"{key}: {self.variable(each.type, key)}"
            for key, each in what.args.items()
            if is_required_argument(each) or self.flip()
        ]
        self.names += 1
        arguments = f"({', '.join(given)})" if given else ""
        return f"a{self.names}: {name}{arguments} {self.selected(what.type, depth + 1)}"


def _is_of(public_id: str, noun: str) -> bool:
    """Whether an id is of the noun that a name in camel case begins or ends with (`bootVolume`, `serverStart`)."""
    prefix = public_id.rpartition("_")[0].replace("_", "")
    return bool(prefix) and (noun.lower().startswith(prefix) or noun.lower().endswith(prefix))


@st.composite
def operations(
    draw: DrawFn, schema: GraphQLSchema, ids: Sequence[str], root: tuple[str, str], own: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """A document that calls a field of a root (``("mutation", "serverCreate")``), a query others too; its variables.

    ``own``: those of the ids that belong to whoever will send it.
    """
    kind, first = root
    known = schema.get_root_type(OperationType(kind))
    assert known is not None
    drawing = Drawing(draw, schema, ids, own=own, sensible=draw(st.booleans()))
    more = draw(st.lists(st.sampled_from(sorted(known.fields)), max_size=2)) if kind == "query" else []
    bodies = []
    for name in [first, *more]:
        drawing.about = name
        bodies.append(drawing.called(name, known.fields[name]))
    declared = f"({', '.join(drawing.declared)})" if drawing.declared else ""
    return f"{kind} Q{declared} {{ {' '.join(bodies)} }}", drawing.values
