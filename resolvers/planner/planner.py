"""The read planner: what the transport asks before it lets the executor answer a query.

A valid query becomes a plan once: one SQL statement whose answer is the JSON of ``data``. Plans are kept in one bounded
dict by the operation, the values of its variables that shape it, and the subject's shape; a request then costs binding
its inputs, one statement and filling its holes.

Invariant: a plan answers only what the executor would answer without an error. Whatever else comes up (a field without
a spelling, a refused caller, a bad cursor, a broken connection, a row that breaks a promise) is answered None, and the
ordinary path tells it in its own words. Nothing here decides what may be seen: that is in the nouns' scopes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from graphql.execution import Executor
from graphql.execution.values import get_variable_values
from strawberry import Schema

from gateway.kernel.access import Need, Subject, check
from gateway.kernel.errors import Refusal, Refusals
from gateway.kernel.noun import Noun
from gateway.reads import subjects
from gateway.reads.errors import NotAsPromised, NotRead, Unspelt
from gateway.reads.reader import Reader as Connections
from gateway.reads.statement import Dialect, Statement, compiled
from gateway.reads.subjects import Shape, Shapes
from gateway.reads.tree import Root
from resolvers.kernel import graph, nodes
from resolvers.kernel.connections import Listing
from resolvers.kernel.context import Context
from resolvers.kernel.roots import ROOTS
from resolvers.planner.inputs import Make, plain_variables, plainly, variables_of_nouns, variables_of_shape
from resolvers.planner.reading import Reader, Tables
from resolvers.planner.selection import Reading, Selection, Unplanned
from resolvers.transport.operations import Operation

_PLANS = 1024
_SMALL_COST = 4096
"""Operations up to this cost, some two milliseconds, are read in the event loop's own thread on SQLite: a thread costs
a tenth of that, and the executor would keep the loop busy for longer. What an index does not bound is never small.
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled operation: its statement, its inputs, the JSON between its roots, and what its roots need."""

    statement: Statement
    inputs: tuple[Make, ...]
    names: tuple[bytes, ...]
    needs: tuple[Need, ...]
    light: bool

    def data(self, found: Sequence[bytes | None]) -> bytes:
        """The JSON of ``data`` from the statement's row. Raises NotAsPromised."""
        pieces: list[bytes] = []
        for name, value in zip(self.names, found, strict=True):
            pieces += (name, b"null" if value is None else value)
        return self.statement.holes.filled(b"".join((*pieces, b"}")))


Bound = tuple[Plan, Sequence[Any], bool]
"""A plan, its statement's parameters for one request, and whether it is small."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of an operation before any variable has a value."""

    variables: tuple[str, ...]
    plain: Mapping[str, type[Any]]
    nouns: tuple[str, ...]
    token: object


class Planner:
    """Answers queries of one schema on one database."""

    def __init__(self, schema: Schema, connections: Connections, *, on_sqlite: bool) -> None:
        self._tables = Tables(schema)
        self._core = self._tables.core
        self._connections = connections
        self._dialect = Dialect(on_sqlite=on_sqlite)
        self._shapes = Shapes()
        self._plans: OrderedDict[Any, Plan | None] = OrderedDict()

    async def __call__(self, operation: Operation, variables: Mapping[str, Any], context: Context) -> bytes | None:
        """The JSON text of ``data``, or None: the executor is to answer."""
        try:
            bound = self._bound(operation, variables, context)
            if bound is None:
                return None
            plan, parameters, small = bound
            return plan.data(await self._connections.read(plan.statement.text, parameters, small=small))
        except (Unplanned, Unspelt, NotRead, NotAsPromised, Refusal, Refusals) as reason:
            log.debug("answered by the executor", reason=repr(reason))
        except Exception:
            log.exception("a read plan failed; the executor answers")
        return None

    def _bound(self, operation: Operation, variables: Mapping[str, Any], context: Context) -> Bound | None:
        subject = context.subject
        who = self._shapes.of(subject)
        if who is None:
            return None
        outline = operation.memo.get("outline") or self._outline(operation)
        plan = self._plan(operation, outline, variables, who.shape)
        if plan is None:
            return None
        for need in plan.needs:
            check(subject, need)
        coerced = variables if plainly(variables, outline.plain) else self._coerced(operation, variables)
        parameters = plan.statement.bound([make(coerced) for make in plan.inputs], who.values)
        small = plan.light and context.limits is not None and context.limits.cost <= _SMALL_COST
        return plan, parameters, small

    def close(self) -> None:
        """Drop all connections."""
        self._connections.close()

    # ------------------------------------------------------------------------------------ plans

    @staticmethod
    def _outline(operation: Operation) -> Outline:
        shaping = variables_of_shape(operation.document, operation.node)
        found = Outline(shaping, plain_variables(operation.node), variables_of_nouns(operation.node), object())
        operation.memo["outline"] = found
        return found

    def _plan(self, operation: Operation, outline: Outline, variables: Mapping[str, Any], shape: Shape) -> Plan | None:
        said: Any = None
        if outline.variables or outline.nouns:
            said = tuple([repr(variables[name]) if name in variables else None for name in outline.variables])
            said += tuple([str(variables.get(name)).rpartition("_")[0] for name in outline.nouns])
        nulls = tuple([name for name, value in variables.items() if value is None]) if variables else None
        key = (outline.token, shape, said, tuple(variables), nulls)
        try:
            plan = self._plans[key]
            self._plans.move_to_end(key)
        except KeyError:
            plan = self._plans[key] = self._compiled(operation, variables, shape)
            if len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        return plan

    def _coerced(self, operation: Operation, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        found = get_variable_values(self._core, operation.node.variable_definitions or (), dict(variables))
        if isinstance(found, list):
            raise Unplanned("a variable's value is refused")
        return found.coerced

    def _compiled(self, operation: Operation, variables: Mapping[str, Any], shape: Shape) -> Plan | None:
        """A new plan; None when there is none for this operation whatever its inputs are."""
        built = Executor.build(self._core, operation.document, None, None, dict(variables), operation.name)
        if isinstance(built, list):
            raise Unplanned("the operation is refused")
        reading = Reading(self._core, operation.node, built.fragments, built.variable_values)
        reader = Reader(self._tables)
        try:
            roots = reading.roots()
            if not roots:
                return None
            subject = subjects.symbolic(shape)
            trees = [self._root(reader, each, subject) for each in roots.values()]
            statement = compiled(trees, subject, self._dialect)
        except (Unplanned, Unspelt) as reason:
            log.debug("no plan", reason=str(reason))
            return None
        names = tuple(
            b"%s%s:" % (b"," if number else b"{", b'"' + name.encode() + b'"') for number, name in enumerate(roots)
        )
        needs = tuple(dict.fromkeys(ROOTS["Query", each.name].need for each in roots.values()))
        one_index = shape.admin or sum(shape.tenants) <= 1
        return Plan(statement, tuple(reader.inputs.makers), names, needs, light=reader.light and one_index)

    def _root(self, reader: Reader, selection: Selection, subject: Subject) -> Root:
        root = ROOTS.get(("Query", selection.name))
        query = self._core.query_type
        if root is None or root.reads is None or query is None:
            raise Unplanned(f"Query.{selection.name}")
        if isinstance(root.reads, Listing):
            return reader.listed(root.reads, query, selection)
        if isinstance(root.reads, Noun):
            return reader.found(root.reads, query, selection)
        if isinstance(root.reads, graph.Own):
            return reader.known(root.reads, query, selection, subject)
        if root.reads is nodes.ANY:
            return reader.any(query, selection)
        raise Unplanned(f"Query.{selection.name}")
