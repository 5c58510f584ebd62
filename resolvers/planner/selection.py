"""What an operation selects, by graphql-core's own rules: merged fields, fragments, ``@skip`` and ``@include``.

Nothing is decided here that the executor would decide otherwise: the collecting functions are its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from graphql import FieldNode, GraphQLObjectType, GraphQLSchema, OperationDefinitionNode
from graphql.execution.collect_fields import FieldDetails, FragmentDetails, collect_fields, collect_subfields
from graphql.execution.values import VariableValues, get_argument_values


class Unplanned(Exception):  # noqa: N818 - an event: the executor shall answer
    """There is no plan for this operation; the message names what stands in its way."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One operation with the values of its variables."""

    schema: GraphQLSchema
    operation: OperationDefinitionNode
    fragments: dict[str, FragmentDetails]
    variables: VariableValues

    def roots(self) -> dict[str, Selection]:
        """The root fields by response name."""
        query = self.schema.query_type
        if query is None:
            raise Unplanned("no query")
        found = collect_fields(self.schema, self.fragments, self.variables, query, self.operation)
        return _grouped(self, found.grouped_field_set)


@dataclass(frozen=True, slots=True)
class Selection:
    """The nodes of one response name."""

    reading: Reading
    details: list[FieldDetails]

    @property
    def node(self) -> FieldNode:
        """The first node: all of them have the same name and arguments."""
        return self.details[0].node

    @property
    def name(self) -> str:
        """The field's name."""
        return self.node.name.value

    def below(self, core: GraphQLObjectType) -> dict[str, Selection]:
        """What is selected of the field's object, if it is of that type."""
        at = self.reading
        found = collect_subfields(at.schema, at.fragments, at.variables, at.operation, core, self.details)
        return _grouped(at, found.grouped_field_set)

    def possible(self, core: Any) -> Iterable[GraphQLObjectType]:
        """The types that an abstract type's object may have."""
        return self.reading.schema.get_possible_types(core)

    def arguments(self, core: GraphQLObjectType, variables: VariableValues | None = None) -> dict[str, Any]:
        """The field's arguments, coerced; with other variables than the operation's if there are any."""
        return get_argument_values(core.fields[self.name], self.node, variables or self.reading.variables)


def _grouped(reading: Reading, found: dict[str, list[FieldDetails]]) -> dict[str, Selection]:
    return {name: Selection(reading, details) for name, details in found.items()}


def strawberry_field(core: GraphQLObjectType, name: str) -> Any:
    """The strawberry field behind a field of the schema."""
    found: Any = core.fields[name].extensions.get("strawberry-definition")
    if found is None:
        raise Unplanned(f"{core.name}.{name}")
    return found
