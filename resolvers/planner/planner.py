"""The read planner: what the transport asks before it lets the executor answer a query.

A valid query becomes a plan once: one SQL statement whose answer is the JSON of ``data``. Plans are kept in one bounded
dict by the operation, the values of its variables that shape it, and the subject's shape; a request then costs binding
its inputs, one statement and filling its holes. Root fields that are no rows are asked of their own resolvers; those
that have no plan are the executor's, beside the others.

Invariant: a plan answers only what the executor would answer without an error. Whatever else comes up (a field without
a spelling, a refused caller, a bad cursor, a broken connection, a row that breaks a promise) is answered None, and the
ordinary path tells it in its own words. Nothing here decides what may be seen: that is in the nouns' scopes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from graphql import GraphQLError
from graphql.execution import Executor
from graphql.execution.values import VariableValues, get_variable_values
from strawberry import Schema

from gateway.kernel.access import Need, Subject, check
from gateway.kernel.errors import Refusal, Refusals
from gateway.kernel.noun import Noun
from gateway.reads import subjects
from gateway.reads.errors import NotAsPromised, NotRead, Unspelt
from gateway.reads.filters import Taken
from gateway.reads.reader import Reader as Connections
from gateway.reads.statement import Dialect, compiled
from gateway.reads.subjects import Shape, Shapes
from gateway.reads.tree import Const, Root
from resolvers.kernel import graph, nodes
from resolvers.kernel.connections import Listing
from resolvers.kernel.context import Context, on_thread
from resolvers.kernel.roots import ROOTS
from resolvers.planner.inputs import Variables, plain_variables, plainly, variables_of, variables_of_nouns
from resolvers.planner.plans import Family, Plan, structure, without
from resolvers.planner.reading import Reader, Tables
from resolvers.planner.resolved import Answer, answering
from resolvers.planner.selection import Reading, Selection, Unplanned
from resolvers.transport.operations import Operation
from resolvers.transport.settings import Mixed

_TYPENAME = "__typename"
_PLANS = 1024
_SMALL_COST = 4096
"""Operations up to this cost, some two milliseconds, are read in the event loop's own thread on SQLite: a thread costs
a tenth of that, and the executor would keep the loop busy for longer. What an index does not bound is never small.
"""

log = structlog.get_logger(__name__)


class Bound(NamedTuple):
    """A plan for one request: its statement's parameters, whether it reads little, and for what its resolvers need the
    operation's variables.
    """

    plan: Plan
    parameters: Sequence[Any] = ()
    small: bool = False
    variables: VariableValues | None = None


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of an operation before any variable has a value."""

    variables: Variables
    plain: Mapping[str, tuple[type[Any], ...]]
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
        self._plans: OrderedDict[Any, Plan | Family | None] = OrderedDict()

    async def __call__(
        self, operation: Operation, variables: Mapping[str, Any], context: Context
    ) -> bytes | Mixed | None:
        """The JSON text of ``data``, or of some roots of it, or None: the executor is to answer."""
        try:
            bound = self._bound(operation, variables, context)
            if bound is None:
                return None
            plan = bound.plan
            found: Sequence[bytes | None] = ()
            if plan.statement is not None:
                text = plan.statement.text
                found = await self._connections.read(text, bound.parameters, small=bound.small, bounded=plan.light)
            told = await _told(bound, context) if bound.variables is not None else {}
            if plan.files:
                return await on_thread(lambda: plan.data(found, told, context))
            return plan.data(found, told, context)
        except (Unplanned, Unspelt, NotRead, NotAsPromised, Refusal, Refusals, GraphQLError) as reason:
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
        found = self._kept(operation, outline, variables, who.shape)
        taken: Sequence[Taken] = ()
        if isinstance(found, Family):
            found, taken = self._member(found, operation, outline, variables, who.shape)
        if found is None:
            return None
        for need in found.needs:
            check(subject, need)
        asked = self._coerced(operation, variables) if found.answers else None
        if asked is not None:
            coerced: Mapping[str, Any] = asked.coerced
        elif plainly(variables, outline.plain):
            coerced = variables
        else:
            coerced = self._coerced(operation, variables).coerced
        if found.statement is None:
            return Bound(found, variables=asked)
        given = found.given(coerced, taken, context.services.db)
        small = found.light and context.limits is not None and context.limits.cost <= _SMALL_COST
        return Bound(found, found.statement.bound(given, who.values), small, asked)

    def close(self) -> None:
        """Drop all connections."""
        self._connections.close()

    # ------------------------------------------------------------------------------------ plans

    @staticmethod
    def _outline(operation: Operation) -> Outline:
        found = Outline(
            variables_of(operation.document, operation.node), plain_variables(operation.node),
            variables_of_nouns(operation.node), object(),
        )  # fmt: skip
        operation.memo["outline"] = found
        return found

    def _kept(
        self, operation: Operation, outline: Outline, variables: Mapping[str, Any], shape: Shape
    ) -> Plan | Family | None:
        said: Any = None
        if outline.variables.shaping or outline.nouns:
            said = _said(outline.variables.shaping, variables)
            said += tuple([str(variables.get(name)).rpartition("_")[0] for name in outline.nouns])
        nulls = tuple([name for name, value in variables.items() if value is None]) if variables else None
        key = (outline.token, shape, said, tuple(variables), nulls)
        try:
            found = self._plans[key]
            self._plans.move_to_end(key)
        except KeyError:
            found = self._plans[key] = self._compiled(operation, variables, shape)
            if len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        return found

    def _member(
        self, family: Family, operation: Operation, outline: Outline, variables: Mapping[str, Any], shape: Shape
    ) -> tuple[Plan | None, Sequence[Taken]]:
        """The plan of a family for the values in these variables."""
        said = _said(outline.variables.filtering, variables)
        known = family.known.get(said)
        if known is not None:
            return known
        taken = family.taken(self._coerced(operation, variables))
        kind = structure(taken)
        if kind not in family.plans:
            made = self._compiled(operation, variables, shape)
            family.keep(taken, made.plans[kind] if isinstance(made, Family) else None)
        plan = family.plans[kind]
        family.learn(said, plan, taken)
        return plan, taken

    def _coerced(self, operation: Operation, variables: Mapping[str, Any]) -> VariableValues:
        found = get_variable_values(self._core, operation.node.variable_definitions or (), dict(variables))
        if isinstance(found, list):
            raise Unplanned("a variable's value is refused")
        return found

    def _compiled(self, operation: Operation, variables: Mapping[str, Any], shape: Shape) -> Plan | Family | None:
        """A new plan, or a family with its first; None when there is none whatever the inputs are."""
        built = Executor.build(self._core, operation.document, None, None, dict(variables), operation.name)
        if isinstance(built, list):
            raise Unplanned("the operation is refused")
        reading = Reading(self._core, operation.node, built.fragments, built.variable_values)
        subject = subjects.symbolic(shape)
        reader = Reader(self._tables, subject)
        roots = reading.roots()
        answers = self._answers(roots)
        trees = self._trees(reader, {name: each for name, each in roots.items() if name not in answers}, subject)
        if not answers and all(roots[name].name == _TYPENAME for name in trees):
            return None
        finds = tuple(find for _, find in reader.inputs.finds)
        plan = None
        try:
            statement = compiled(list(trees.values()), subject, self._dialect) if trees else None
            left = [each for name, each in roots.items() if name not in trees and name not in answers]
            plan = Plan(
                statement=statement,
                inputs=tuple(reader.inputs.makers),
                filtered=tuple(number for number, _ in reader.inputs.finds),
                moments=tuple(reader.inputs.moments),
                names=tuple(trees),
                answers=answers,
                needs=_needs(roots[name].name for name in (*trees, *answers)),
                files=reader.files,
                light=reader.light and (shape.admin or sum(shape.tenants) <= 1),
                order=tuple(roots),
                rest=without(operation.document, operation.node, left) if left else None,
            )
        except Unspelt as reason:
            log.debug("no plan", reason=str(reason))
        if not finds:
            return plan
        family = Family(finds)
        family.keep(family.taken(built.variable_values), plan)
        return family

    def _answers(self, roots: Mapping[str, Selection]) -> dict[str, Answer]:
        """The roots that their own resolvers answer."""
        found: dict[str, Answer] = {}
        query = self._core.query_type
        for name, each in roots.items():
            root = ROOTS.get(("Query", each.name))
            if query is None or root is None or not isinstance(root.reads, graph.Resolved):
                continue
            try:
                found[name] = answering(self._tables, query, each)
            except Unplanned as reason:
                log.debug("not planned", root=name, reason=str(reason))
        return found

    def _trees(self, reader: Reader, roots: Mapping[str, Selection], subject: Subject) -> dict[str, Root]:
        """The roots that can be planned."""
        found: dict[str, Root] = {}
        for name, each in roots.items():
            before = reader.mark()
            try:
                found[name] = self._root(reader, each, subject)
            except (Unplanned, Unspelt) as reason:
                reader.back(before)
                log.debug("not planned", root=name, reason=str(reason))
        return found

    def _root(self, reader: Reader, selection: Selection, subject: Subject) -> Root:
        if selection.name == _TYPENAME:
            return Const('"Query"')
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
        if root.reads is nodes.SEVERAL:
            return reader.several(query, selection)
        raise Unplanned(f"Query.{selection.name}")


async def _told(bound: Bound, context: Context) -> dict[str, bytes]:
    """What the plan's resolvers answer, all at once. Raises what the first of them raises, after all of them ended."""
    variables = bound.variables
    if variables is None:
        raise AssertionError("a plan whose resolvers answer is bound with its variables")
    answers = bound.plan.answers
    told = await asyncio.gather(*(each(context, variables) for each in answers.values()), return_exceptions=True)
    found: dict[str, bytes] = {}
    for name, each in zip(answers, told, strict=True):
        if isinstance(each, BaseException):
            raise each
        found[name] = each
    return found


def _needs(names: Iterable[str]) -> tuple[Need, ...]:
    """What some root fields need."""
    return tuple(dict.fromkeys(ROOTS["Query", name].need for name in names if name != _TYPENAME))


def _said(names: Sequence[str], variables: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The values of some variables as they came, as a key."""
    return tuple([repr(variables[name]) if name in variables else None for name in names])
