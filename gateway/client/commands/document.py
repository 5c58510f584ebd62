"""What ``stratograph gql`` must know of a document before it is sent: which operation runs, and how to read variables.

The declared type decides how ``key=value`` is read: numbers and booleans as such, lists and input objects as JSON, all
else (strings, ids, enums, dates) as the text that it is. Nothing is validated here: that is the cloud's to say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphql import GraphQLError, NamedTypeNode, NonNullTypeNode, OperationDefinitionNode, parse
from graphql.language import TypeNode

_AS_JSON: Final = frozenset({"Int", "Float", "Boolean"})
_AS_TEXT: Final = frozenset({"String", "ID"})
_MOST_TOKENS: Final = 20_000


class Misuse(ValueError):  # noqa: N818 - said to the user
    """The document or its variables are not what they must be; the message says why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """The one that runs. ``types`` are those of its variables."""

    kind: str
    name: str | None
    types: dict[str, TypeNode]


def operation_of(text: str, name: str | None) -> Operation:
    """The operation to run of a document: the named one, or the only one. Raises Misuse."""
    try:
        document = parse(text, max_tokens=_MOST_TOKENS)
    except GraphQLError as error:
        raise Misuse(f"the document is no GraphQL: {error}") from None
    found = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    known = [each.name.value for each in found if each.name is not None]
    if name is not None:
        found = [each for each in found if each.name is not None and each.name.value == name]
    if len(found) != 1:
        names = f" ({', '.join(known)})" if known else ""
        raise Misuse(f"there is no operation {name}{names}" if name else f"say which operation with --operation{names}")
    chosen = found[0]
    types = {each.variable.name.value: each.type for each in chosen.variable_definitions or ()}
    return Operation(chosen.operation.value, chosen.name.value if chosen.name is not None else None, types)


def variables_of(operation: Operation, text: str | None, pairs: Sequence[str]) -> dict[str, Any]:
    """The variables, from one JSON object and from ``key=value``, which goes before. Raises Misuse."""
    values = _object(text) if text is not None else {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Misuse(f"{pair} is not key=value")
        if key not in operation.types:
            known = ", ".join(f"${each}" for each in operation.types) or "no variables"
            raise Misuse(f"the operation has no variable ${key}; it has {known}")
        values[key] = _value(key, value, operation.types[key])
    return values


def _is_json(declared: str, text: str) -> bool:
    """Whether a named type's value is written as JSON: numbers, booleans, and input objects (known by their brace)."""
    return declared in _AS_JSON or (declared not in _AS_TEXT and text.startswith("{"))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Misuse(f"the variables are no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Misuse("the variables must be a JSON object")
    return found


def _value(key: str, text: str, declared: TypeNode) -> Any:
    nullable = not isinstance(declared, NonNullTypeNode)
    inner = declared.type if isinstance(declared, NonNullTypeNode) else declared
    if nullable and text == "null":
        return None
    if isinstance(inner, NamedTypeNode) and not _is_json(inner.name.value, text):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise Misuse(f"{key} must be JSON: {error}") from None
