"""What a request gives a plan, apart from its shape: page sizes, cursors and ids out of its variables.

An argument that is a variable of its own (``first: $first``) becomes an input, read anew from each request, and so do
the values of filters that hold variables, and the moment of the request; every other value (orders, ``@include``)
belongs to the shape, and another value is another plan. What the ordinary path would refuse (a page of 1,000, a foreign
cursor, an id of nothing, a period of a year) is refused here by an exception, so that it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    InlineFragmentNode,
    NamedTypeNode,
    NonNullTypeNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution.values import VariableValues
from graphql.language import ArgumentNode

from gateway.kernel import paging
from gateway.reads.tree import Given
from resolvers.planner.selection import Selection

Make = Callable[[Mapping[str, Any]], Any]
"""An input from the coerced variables."""

Find = Callable[[VariableValues], Any]
"""A filtered list's select from the coerced variables."""

FILTER: Final = "filter"
INPUTS: Final = frozenset({"id", "ids", "first", "last", "after", "before", "start", "end"})
"""Arguments whose values are inputs."""
INPUT: Final = "input"
"""The argument of roots that their resolvers answer: whatever is in it is theirs."""


class Inputs:
    """The inputs of one plan, numbered as they are met."""

    def __init__(self) -> None:
        self.makers: list[Make] = []
        self.finds: list[tuple[int, Find]] = []
        """Selects whose values are an input, with its number."""
        self.moments: list[int] = []
        """Inputs that are the moment of the request."""

    def copy(self) -> Inputs:
        """The inputs so far."""
        made = Inputs()
        made.makers, made.finds, made.moments = list(self.makers), list(self.finds), list(self.moments)
        return made

    def add(self, make: Make) -> Given:
        """A new input."""
        self.makers.append(make)
        return Given(len(self.makers) - 1)

    def moment(self) -> Given:
        """A new input: when it is asked."""
        found = self.add(lambda _variables: None)
        self.moments.append(found.number)
        return found

    def pair(self, selection: Selection, given: Mapping[str, Any], check: Callable[[Any, Any], None]) -> Given:
        """A new input: the values of two arguments, in the order they are ``given``. What ``check`` raises is the
        executor's to tell.
        """
        first, second = (_maker(selection, name, value) for name, value in given.items())

        def make(variables: Mapping[str, Any]) -> tuple[Any, Any]:
            found = first(variables), second(variables)
            check(*found)
            return found

        return self.add(make)

    def filter(self, find: Find) -> int:
        """The number of a new input: the values that the filter of a list is about."""
        number = self.add(lambda _variables: ()).number
        self.finds.append((number, find))
        return number

    def argument(self, selection: Selection, name: str, value: Any, read: Callable[[Any], Any]) -> Given:
        """The input of an argument whose value is now ``value``: read from its variable if it is one."""
        variable = _variable_of(selection, name)
        if variable is not None:
            return self.add(lambda variables: read(variables[variable]))
        fixed = read(value)
        return self.add(lambda _variables: fixed)

    def size(self, selection: Selection, wanted: paging.Want) -> Given:
        """The page's size, and one more to see whether others follow."""
        name = "last" if wanted.last is not None else "first"

        def read(size: Any) -> tuple[int, int]:
            found, _ = paging.extent(paging.Want(**{name: size}))
            return found, found + 1

        value = wanted.last if wanted.last is not None else wanted.first
        if value is None:
            return self.add(lambda _variables: (paging.DEFAULT_SIZE, paging.DEFAULT_SIZE + 1))
        return self.argument(selection, name, value, read)

    def cursor(self, selection: Selection, wanted: paging.Want, name: str) -> Given | None:
        """The keys behind or before which the page lies."""
        value = getattr(wanted, name)
        if value is None:
            return None
        return self.argument(selection, name, value, lambda text: _keys(text, wanted.order, name, wanted.descending))


@lru_cache(maxsize=4096)
def _keys(text: str, order: str, name: str, descending: bool) -> tuple[Any, ...]:  # noqa: FBT001 - a key of the cache
    """The keys in a cursor: pages are read again and again."""
    return tuple(paging.decoded(text, paging.Want(order=order, descending=descending), name))


def _variable_of(selection: Selection, name: str) -> str | None:
    """The variable that an argument is."""
    for each in selection.node.arguments or ():
        if each.name.value == name and isinstance(each.value, VariableNode):
            return each.value.name.value
    return None


def _maker(selection: Selection, name: str, value: Any) -> Make:
    """An argument's value, as its scalar parsed it."""
    variable = _variable_of(selection, name)
    return (lambda _variables: value) if variable is None else (lambda variables: variables[variable])


@dataclass(frozen=True, slots=True)
class Variables:
    """An operation's variables by what their values decide: ``shaping`` ones the plan, ``filtering`` ones nothing but
    which comparisons a filter consists of. All others are inputs.
    """

    shaping: tuple[str, ...]
    filtering: tuple[str, ...]


def variables_of(document: DocumentNode, operation: OperationDefinitionNode) -> Variables:
    """What the operation's variables are for."""
    found = _Uses()
    visit(document, found)
    declared = [each.variable.name.value for each in operation.variable_definitions or ()]
    shaping = [each for each in declared if each in found.elsewhere or each not in found.inputs | found.filters]
    return Variables(tuple(shaping), tuple(each for each in declared if each in found.filters and each not in shaping))


def holds_variables(selection: Selection, name: str) -> bool:
    """Whether there are variables in an argument."""
    for each in selection.node.arguments or ():
        if each.name.value == name:
            found = _Uses()
            visit(each.value, found)
            return bool(found.elsewhere)
    return False


def variables_of_nouns(operation: OperationDefinitionNode) -> tuple[str, ...]:
    """The variables that are ``node``'s id: what their ids are of decides the plan, too."""
    found: dict[str, None] = {}
    for root in _fields(operation.selection_set):
        for each in root.arguments or ():
            if root.name.value == "node" and isinstance(each.value, VariableNode):
                found[each.value.name.value] = None
    return tuple(found)


_PLAIN: Final = {"ID": str, "String": str, "Int": int}
_INT32: Final = 2**31


def plain_variables(operation: OperationDefinitionNode) -> dict[str, tuple[type[Any], ...]]:
    """Of each variable the Python types whose values need no coercion: none where every value does."""
    found: dict[str, tuple[type[Any], ...]] = {}
    for each in operation.variable_definitions or ():
        promised = isinstance(each.type, NonNullTypeNode)
        kind = each.type.type if isinstance(each.type, NonNullTypeNode) else each.type
        found[each.variable.name.value] = ()
        if isinstance(kind, NamedTypeNode) and kind.name.value in _PLAIN:
            plain = _PLAIN[kind.name.value]
            found[each.variable.name.value] = (plain,) if promised else (plain, type(None))
    return found


def plainly(variables: Mapping[str, Any], kinds: Mapping[str, tuple[type[Any], ...]]) -> bool:
    """Whether graphql-core would leave these values as they are."""
    for name, value in variables.items():
        if type(value) not in kinds.get(name, ()):
            return False
        if type(value) is int and not -_INT32 <= value < _INT32:
            return False
    return len(variables) == len(kinds)


class _Uses(Visitor):
    """Where variables are used."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: set[str] = set()
        self.filters: set[str] = set()
        self.elsewhere: set[str] = set()

    def enter_argument(self, node: ArgumentNode, _key: Any, _parent: Any, _path: Any, ancestors: Any) -> Any:
        """A variable that is the whole value of a field's argument."""
        field = next((each for each in reversed(ancestors) if not isinstance(each, tuple | list)), None)
        if isinstance(node.value, VariableNode) and isinstance(field, FieldNode) and node.name.value in INPUTS:
            self.inputs.add(node.value.name.value)
            return self.SKIP
        if isinstance(field, FieldNode) and node.name.value in (FILTER, INPUT):
            inner = _Uses()
            visit(node.value, inner)
            kept = self.filters if node.name.value == FILTER else self.inputs
            kept |= inner.elsewhere
            return self.SKIP
        return None

    def enter_variable(self, node: VariableNode, _key: Any, parent: Any, *_: Any) -> None:
        """Any other use, but for the declaration."""
        if not hasattr(parent, "default_value") or getattr(parent, "variable", None) is not node:
            self.elsewhere.add(node.name.value)


def _fields(selections: SelectionSetNode) -> Iterator[FieldNode]:
    """The fields of a selection, those in inline fragments too."""
    for each in selections.selections:
        if isinstance(each, FieldNode):
            yield each
        elif isinstance(each, InlineFragmentNode):
            yield from _fields(each.selection_set)
