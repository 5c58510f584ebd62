"""From a document's text to an operation that may run: parse, check the shape, validate, select, cost; each text once.

Invariant: what is in the cache is valid against this schema and within every limit that does not depend on variables.
The cache is one bounded LRU dict keyed by the text (strawberry's two caches would hash the whole syntax tree again for
each request); refused texts are not kept. It deliberately knows neither callers nor transports.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from graphql import (
    SKIP,
    ArgumentNode,
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    parse,
    specified_rules,
    validate,
    visit,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from resolvers.transport.errors import ErrorCode, RequestRefused
from resolvers.transport.limits import CostModel, Limits, check_shape, too_much

_TOO_NESTED: Final = "Document is nested too deeply. Parsing aborted."
_ABORTED: Final = "Parsing aborted."
_LARGEST_CACHED_CHARS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a validated document. ``memo`` is a planner's own drawer; it lives as long as this does."""

    document: DocumentNode
    node: OperationDefinitionNode
    name: str | None
    kind: OperationType
    text: str
    cost: CostModel
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def shown_by(self) -> frozenset[str]:
        """The variables that the shown may depend on: all but those that are only given to root fields, which say what
        a subscription is told of (such as ``after``).
        """
        found: frozenset[str] | None = self.memo.get("shown_by")
        if found is None:
            seen = _Variables(self.node)
            visit(self.document, seen)
            found = self.memo["shown_by"] = frozenset(seen.names)
        return found


class _Variables(Visitor):
    """Collects the variables that are used anywhere but in the arguments of an operation's own root fields."""

    def __init__(self, operation: OperationDefinitionNode) -> None:
        super().__init__()
        self.names: set[str] = set()
        self._passed = {
            id(argument)
            for each in operation.selection_set.selections
            if isinstance(each, FieldNode)
            for argument in each.arguments or ()
        }

    def enter_variable_definition(self, *_: Any) -> Any:
        return SKIP

    def enter_argument(self, node: ArgumentNode, *_: Any) -> Any:
        return SKIP if id(node) in self._passed else None

    def enter_variable(self, node: VariableNode, *_: Any) -> None:
        self.names.add(node.name.value)


@dataclass(frozen=True, slots=True)
class Document:
    """A validated document and its operations by name."""

    operations: Mapping[str | None, Operation]

    def select(self, name: str | None) -> Operation:
        """The operation to run.

        Raises :class:`RequestRefused` (OPERATION_NOT_FOUND) for an unknown name, and for a missing one among several:
        nothing is run by position.
        """
        if name is not None:
            found = self.operations.get(name)
            if found is None:
                raise RequestRefused(ErrorCode.OPERATION_NOT_FOUND, "The document has no operation of that name.")
            return found
        if len(self.operations) != 1:
            raise RequestRefused(
                ErrorCode.OPERATION_NOT_FOUND, "Must provide operationName: the document has several operations."
            )
        return next(iter(self.operations.values()))


@dataclass(slots=True)
class DocumentCache:
    """The documents of one schema, least recently used first out; bounded in entries and in characters of text."""

    schema: GraphQLSchema
    limits: Limits
    introspection: bool = True
    entries_max: int = 1_000
    chars_max: int = 2_097_152
    _documents: OrderedDict[str, Document] = field(default_factory=OrderedDict)
    _chars: int = 0

    def knows(self, text: str) -> bool:
        """Whether ``text`` would be answered without work."""
        return text in self._documents

    def get(self, text: str) -> Document:
        """The document of ``text``, compiled at its first use. Raises :class:`RequestRefused`."""
        found = self._documents.get(text)
        if found is not None:
            self._documents.move_to_end(text)
            return found
        document = self._compile(text)
        if len(text) <= _LARGEST_CACHED_CHARS:
            self._documents[text] = document
            self._chars += len(text)
            while len(self._documents) > self.entries_max or self._chars > self.chars_max:
                evicted, _ = self._documents.popitem(last=False)
                self._chars -= len(evicted)
        return document

    def _compile(self, text: str) -> Document:
        tree = _parsed(text, self.limits)
        check_shape(tree, self.limits)
        rules = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)
        if not self.introspection:
            rules = (*rules, NoSchemaIntrospectionCustomRule)
        errors = validate(self.schema, tree, rules, max_errors=20, hide_suggestions=not self.introspection)
        if errors:
            raise RequestRefused.of(ErrorCode.GRAPHQL_VALIDATION_FAILED, errors)
        operations: dict[str | None, Operation] = {}
        for node in tree.definitions:
            if isinstance(node, OperationDefinitionNode):
                name = node.name.value if node.name else None
                cost = CostModel(self.schema, self.limits, tree, node)
                operations[name] = Operation(tree, node, name, node.operation, text, cost)
        if not operations:
            raise RequestRefused(ErrorCode.OPERATION_NOT_FOUND, "The document has no operation.")
        return Document(operations)


def _parsed(text: str, limits: Limits) -> DocumentNode:
    if len(text) > limits.characters:
        raise too_much(ErrorCode.TOO_MANY_CHARACTERS, "characters", len(text), limits.characters)
    try:
        return parse(text, max_lexical_tokens=limits.tokens, max_comments=limits.tokens)
    except GraphQLSyntaxError as error:
        refused = _over_a_limit(error.message, limits)
        if refused is not None:
            raise refused from None
        raise RequestRefused.of(ErrorCode.GRAPHQL_PARSE_FAILED, [error]) from None
    except GraphQLError as error:
        raise RequestRefused.of(ErrorCode.GRAPHQL_PARSE_FAILED, [error]) from None


def _over_a_limit(message: str, limits: Limits) -> RequestRefused | None:
    """The refusal behind a syntax error of the parser's own limits, which it tells apart by their wording only."""
    if message.endswith(_TOO_NESTED):
        return RequestRefused(ErrorCode.TOO_DEEP, "The document is nested too deeply to be read.", limit=limits.depth)
    if message.endswith(_ABORTED):
        return RequestRefused(
            ErrorCode.TOO_MANY_TOKENS, f"The document has over {limits.tokens} tokens.", limit=limits.tokens
        )
    return None
