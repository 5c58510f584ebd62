"""What an operation may ask for, found out before it runs: depth, aliases, nodes and cost.

Invariant: every figure is computed once per fragment and combined, so the work is linear in the document's size; a
fragment that multiplies itself a hundred times over is a hundred additions. Counts saturate, they never grow without
bound. The shape (depth, aliases, nodes) needs no schema and is checked **before** validation, which is quadratic in
places; the cost needs one and the page sizes, and is a pure function of the document and the few variables that are
page sizes.

It deliberately does not look at data: the cost is what a query may cost, not what it did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_list_type,
)

from resolvers.transport.errors import ErrorCode, RequestRefused

SATURATED: Final = 1_000_000_000
PAGE_ARGUMENTS: Final = ("first", "last")
LIST_ARGUMENTS: Final = ("ids",)
PAGED_CHILDREN: Final = frozenset({"edges", "nodes"})


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest operation that is served.

    ``characters`` and ``tokens`` of the document; ``depth`` in levels of fields; ``aliases`` and ``nodes`` (fields)
    with fragments expanded; ``duplicates`` of one field in one place, which validation compares pair by pair.

    ``cost`` in units: a field that gives an object is 1 and its children are multiplied by the page size (``first``,
    ``last``, else ``page_size``, at most ``page_size_max``; a plain list counts the length of its ``ids``, else
    ``list_size``), a mutation's root field is ``mutation_cost`` more, ``__schema`` and ``__type`` are
    ``introspection_cost`` flat.
    """

    characters: int = 100_000
    tokens: int = 5_000
    depth: int = 16
    aliases: int = 60
    nodes: int = 600
    duplicates: int = 50
    cost: int = 50_000
    page_size: int = 20
    page_size_max: int = 100
    list_size: int = 10
    mutation_cost: int = 10
    introspection_cost: int = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a selection with its fragments expanded; saturating."""

    depth: int = 0
    aliases: int = 0
    nodes: int = 0

    def __add__(self, other: Shape) -> Shape:
        return Shape(
            max(self.depth, other.depth),
            min(self.aliases + other.aliases, SATURATED),
            min(self.nodes + other.nodes, SATURATED),
        )


NOTHING: Final = Shape()


def fragments_in_order(document: DocumentNode) -> list[FragmentDefinitionNode]:
    """All fragments, each after those that it spreads; a cycle (which validation will refuse) is cut somewhere."""
    named = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    ordered: dict[str, FragmentDefinitionNode] = {}
    entered: set[str] = set()
    for start in named:
        stack = [(start, False)]
        while stack:
            name, children_done = stack.pop()
            if children_done:
                ordered[name] = named[name]
            elif name in named and name not in entered:
                entered.add(name)
                stack.append((name, True))
                stack.extend((child, False) for child in _spreads(named[name].selection_set))
    return list(ordered.values())


def _spreads(selection_set: SelectionSetNode) -> Iterable[str]:
    pending = [selection_set]
    while pending:
        for selection in pending.pop().selections:
            if isinstance(selection, FragmentSpreadNode):
                yield selection.name.value
            elif isinstance(selection, FieldNode | InlineFragmentNode) and selection.selection_set:
                pending.append(selection.selection_set)


def check_shape(document: DocumentNode, limits: Limits) -> None:
    """Raises :class:`RequestRefused` when an operation or a fragment is deeper or larger than the limits.

    Fragments are checked on their own too: validation works on those that nothing uses.
    """
    shapes = _Shapes(limits)
    for fragment in fragments_in_order(document):
        shapes.add_fragment(fragment)
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            _refuse_shape(shapes.of(definition.selection_set, Counter()), limits)
    _refuse(ErrorCode.TOO_MANY_NODES, "fields", shapes.written, limits.nodes)


class _Shapes:
    """The shapes of one document. ``written`` counts its fields as they stand there, used or not."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fragments: dict[str, tuple[Shape, Counter[str]]] = {}
        self.written = 0

    def add_fragment(self, fragment: FragmentDefinitionNode) -> None:
        """Measures a fragment whose own spreads were added before."""
        names: Counter[str] = Counter()
        shape = self.of(fragment.selection_set, names)
        _refuse_shape(shape, self._limits)
        self._fragments[fragment.name.value] = shape, names

    def of(self, selection_set: SelectionSetNode, names: Counter[str]) -> Shape:
        """The shape of a selection; ``names`` gathers what it selects in its own place, through fragments too."""
        total = NOTHING
        for selection in selection_set.selections:
            if isinstance(selection, FragmentSpreadNode):
                shape, spread = self._fragments.get(selection.name.value, (NOTHING, Counter[str]()))
                names.update(spread)
                total += shape
            elif isinstance(selection, InlineFragmentNode):
                total += self.of(selection.selection_set, names)
            elif isinstance(selection, FieldNode):
                total += self._field(selection, names)
        duplicates = max(names.values(), default=0)
        _refuse(ErrorCode.TOO_MANY_DUPLICATES, "selections of one field", duplicates, self._limits.duplicates)
        return total

    def _field(self, node: FieldNode, names: Counter[str]) -> Shape:
        self.written += 1
        names[(node.alias or node.name).value] += 1
        below = self.of(node.selection_set, Counter()) if node.selection_set else NOTHING
        return Shape(below.depth + 1, below.aliases + (node.alias is not None), below.nodes + 1)


def _refuse(code: ErrorCode, what: str, requested: int, limit: int) -> None:
    if requested > limit:
        raise too_much(code, what, requested, limit)


def _refuse_shape(shape: Shape, limits: Limits) -> None:
    _refuse(ErrorCode.TOO_DEEP, "levels of fields", shape.depth, limits.depth)
    _refuse(ErrorCode.TOO_MANY_ALIASES, "aliases", shape.aliases, limits.aliases)
    _refuse(ErrorCode.TOO_MANY_NODES, "fields", shape.nodes, limits.nodes)


def too_much(code: ErrorCode, what: str, requested: int, limit: int) -> RequestRefused:
    """The refusal of something over its limit, with both figures."""
    return RequestRefused(
        code, f"The operation asks for {requested} {what}; the limit is {limit}.", limit=limit, requested=requested
    )


@dataclass(frozen=True, slots=True)
class _Cost:
    """``once``: units of a selection itself; ``paged``: units of one item of a connection's page."""

    once: int = 0
    paged: int = 0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(min(self.once + other.once, SATURATED), min(self.paged + other.paged, SATURATED))


@dataclass(slots=True)
class CostModel:
    """The static cost of one operation of a valid document.

    Results are kept by the values of those variables that are page sizes, since nothing else changes them.
    """

    schema: GraphQLSchema
    limits: Limits
    document: DocumentNode
    operation: OperationDefinitionNode
    _fragments: list[FragmentDefinitionNode] = field(init=False)
    _defaults: dict[str, ValueNode | None] = field(init=False)
    _sizes: tuple[str, ...] = ()
    _known: dict[tuple[int | None, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._fragments = fragments_in_order(self.document)
        self._defaults = {
            each.variable.name.value: each.default_value for each in self.operation.variable_definitions or ()
        }

    def of(self, variables: Mapping[str, Any]) -> int:
        """Cost in units with these variables as they came in the request (not yet coerced)."""
        key = tuple(self._variable_size(name, variables) for name in self._sizes)
        if self._known and (found := self._known.get(key)) is not None:
            return found
        used: dict[str, None] = {}
        cost = _Walk(self, variables, used).total()
        self._sizes = tuple(used)
        if len(self._known) >= 64:  # noqa: PLR2004 - a small bound; the page sizes of one document are few
            self._known.clear()
        self._known[tuple(self._variable_size(name, variables) for name in self._sizes)] = cost
        return cost

    def _variable_size(self, name: str, variables: Mapping[str, Any]) -> int | None:
        if name in variables:
            return self.clamped(variables[name])
        default = self._defaults.get(name)
        return self.literal_size(default) if default is not None else None

    def literal_size(self, node: ValueNode) -> int | None:
        """The page size that a literal states."""
        if isinstance(node, IntValueNode):
            return self.clamped(int(node.value) if len(node.value) < 12 else SATURATED)  # noqa: PLR2004 - enough digits
        if isinstance(node, ListValueNode):
            return self.clamped(list(node.values))
        return None

    def clamped(self, value: object) -> int | None:
        """A page size from a request's value, between 0 and the maximum; None for what is none."""
        if isinstance(value, list):
            value = len(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return max(0, min(value, self.limits.page_size_max))


class _Walk:
    """One computation of a cost: fragments first, each once, then the operation."""

    def __init__(self, model: CostModel, variables: Mapping[str, Any], used: dict[str, None]) -> None:
        self._model = model
        self._variables = variables
        self._used = used
        self._fragments: dict[str, _Cost] = {}

    def total(self) -> int:
        model = self._model
        for fragment in model._fragments:  # noqa: SLF001 - the walk is the model's own inner part
            on = fragment.type_condition.name.value
            self._fragments[fragment.name.value] = self._selections(fragment.selection_set, on)
        root = model.schema.get_root_type(model.operation.operation)
        if root is None:
            return 0
        return self._selections(model.operation.selection_set, root.name).once

    def _selections(self, selection_set: SelectionSetNode, parent: str) -> _Cost:
        total = _Cost()
        for selection in selection_set.selections:
            if isinstance(selection, FragmentSpreadNode):
                total += self._fragments.get(selection.name.value, _Cost())
            elif isinstance(selection, InlineFragmentNode):
                on = selection.type_condition.name.value if selection.type_condition else parent
                total += self._selections(selection.selection_set, on)
            elif isinstance(selection, FieldNode):
                total += self._field(selection, parent)
        return total

    def _field(self, node: FieldNode, parent: str) -> _Cost:
        schema, limits = self._model.schema, self._model.limits
        parent_type = schema.type_map.get(parent)
        name = node.name.value
        definition = schema.get_field(parent_type, name) if is_composite_type(parent_type) else None
        if definition is None:
            return _Cost()
        extra = limits.mutation_cost if self._is_mutation(parent) else 0
        if name in ("__schema", "__type"):
            return _Cost(limits.introspection_cost)
        if node.selection_set is None:
            return _Cost(extra)
        children = self._selections(node.selection_set, get_named_type(definition.type).name)
        size = self._page_size(node, definition)
        units = 1 + extra + children.once + size * children.paged
        in_a_page = name in PAGED_CHILDREN and _is_connection(parent_type)
        if is_list_type(get_nullable_type(definition.type)) and not in_a_page:
            units = extra + size * (1 + children.once + children.paged)
        units = min(units, SATURATED)
        return _Cost(0, units) if in_a_page else _Cost(units)

    def _is_mutation(self, parent: str) -> bool:
        root = self._model.schema.mutation_type
        return root is not None and root.name == parent and self._model.operation.operation is OperationType.MUTATION

    def _page_size(self, node: FieldNode, definition: GraphQLField) -> int:
        limits = self._model.limits
        sizes: list[int] = []
        for argument in node.arguments or ():
            if argument.name.value in PAGE_ARGUMENTS or argument.name.value in LIST_ARGUMENTS:
                size = self._argument_size(argument.value)
                if size is not None:
                    sizes.append(size)
        if sizes:
            return max(sizes)
        return limits.page_size if any(name in definition.args for name in PAGE_ARGUMENTS) else limits.list_size

    def _argument_size(self, value: ValueNode) -> int | None:
        model = self._model
        if isinstance(value, VariableNode):
            self._used[value.name.value] = None
            return model._variable_size(value.name.value, self._variables)  # noqa: SLF001 - as above
        return model.literal_size(value)


def _is_connection(parent_type: Any) -> bool:
    fields = getattr(parent_type, "fields", {})
    return "pageInfo" in fields and not PAGED_CHILDREN.isdisjoint(fields)
