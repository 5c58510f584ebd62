"""Compiled operations: what of an operation one statement answers, and what is left to the executor.

A plan fits every request that differs from the one it was made for in inputs only. Where filters hold variables, there
is a **family** of plans, one for each set of comparisons that their values amount to; a value that was seen lately
finds its plan by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphql import DocumentNode, FragmentDefinitionNode, OperationDefinitionNode, SelectionSetNode
from graphql.execution.values import VariableValues

from gateway.kernel import clock
from gateway.kernel.access import Need
from gateway.kernel.clock import Informed
from gateway.reads import filters
from gateway.reads.filters import Taken
from gateway.reads.statement import Statement
from resolvers.planner.inputs import Find, Make
from resolvers.planner.resolved import Answer
from resolvers.planner.selection import Selection
from resolvers.transport.settings import Mixed

_MOST_PLANS = 64
_MOST_VALUES = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled operation: its statement, its inputs (those in ``filtered`` are values of filters, those in
    ``moments`` when it is asked), the names of the roots that it answers, and what these need. ``answers`` are roots
    that their resolvers answer, ``rest`` those that are the executor's; ``order`` is that of all. ``files``: something
    is made of what files say.
    """

    statement: Statement | None
    inputs: tuple[Make, ...]
    filtered: tuple[int, ...]
    names: tuple[str, ...]
    needs: tuple[Need, ...]
    light: bool
    order: tuple[str, ...]
    moments: tuple[int, ...] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    files: bool = False
    rest: DocumentNode | None = None
    heads: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        heads = tuple(b'%s"%s":' % (b"," if number else b"{", name.encode()) for number, name in enumerate(self.names))
        object.__setattr__(self, "heads", heads)

    def given(self, variables: Mapping[str, Any], taken: Sequence[Taken], known: Informed) -> list[Any]:
        """The inputs of one request to the cloud that ``known`` knows the time of."""
        found = [make(variables) for make in self.inputs]
        if self.moments:
            moment = clock.now(known)
            for number in self.moments:
                found[number] = moment
        for number, each in zip(self.filtered, taken, strict=True):
            found[number] = each.values
        return found

    def data(self, found: Sequence[bytes | None], told: Mapping[str, bytes], context: Any) -> bytes | Mixed:
        """The JSON of ``data`` for an operation's context, from the statement's row and what resolvers ``told``. Raises
        NotAsPromised.
        """
        if self.statement is None or self.rest is not None or self.answers:
            return self._together(found, told, context)
        pieces: list[bytes] = []
        for head, value in zip(self.heads, found, strict=True):
            pieces += (head, b"null" if value is None else value)
        pieces.append(b"}")
        return self.statement.holes.filled(b"".join(pieces), context)

    def _together(self, found: Sequence[bytes | None], told: Mapping[str, bytes], context: Any) -> bytes | Mixed:
        ready = dict(told)
        if self.statement is not None:
            filled = self.statement.holes.filled
            for name, value in zip(self.names, found, strict=True):
                ready[name] = b"null" if value is None else filled(value, context)
        if self.rest is not None:
            return Mixed(self.order, ready, self.rest)
        return b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), ready[name]) for name in self.order)


@dataclass(slots=True)
class Family:
    """The plans of one operation whose filters have variables."""

    finds: tuple[Find, ...]
    plans: dict[Hashable, Plan | None] = field(default_factory=dict)
    known: dict[Hashable, tuple[Plan | None, list[Taken]]] = field(default_factory=dict)

    def taken(self, variables: VariableValues) -> list[Taken]:
        """What each filter consists of. Raises what the domain refuses."""
        return [filters.taken(find(variables)) for find in self.finds]

    def keep(self, taken: Sequence[Taken], plan: Plan | None) -> None:
        """Keep a plan for what it was made for."""
        if len(self.plans) >= _MOST_PLANS:
            self.plans.clear()
            self.known.clear()
        self.plans[structure(taken)] = plan

    def learn(self, said: Hashable, plan: Plan | None, taken: list[Taken]) -> None:
        """Find the plan of these values by themselves next time."""
        if len(self.known) >= _MOST_VALUES:
            self.known.clear()
        self.known[said] = plan, taken


def structure(taken: Sequence[Taken]) -> Hashable:
    """What decides which plan of a family it is."""
    return tuple(each.structure for each in taken)


def without(document: DocumentNode, operation: OperationDefinitionNode, rest: Sequence[Selection]) -> DocumentNode:
    """The document with these root fields alone, for the executor; their nodes are the same, and so are places told in
    errors.
    """
    fields = tuple(details.node for each in rest for details in each.details)
    kept = OperationDefinitionNode(
        operation=operation.operation,
        name=operation.name,
        variable_definitions=operation.variable_definitions,
        directives=operation.directives,
        selection_set=SelectionSetNode(selections=fields, loc=operation.selection_set.loc),
        loc=operation.loc,
    )
    fragments = (each for each in document.definitions if isinstance(each, FragmentDefinitionNode))
    return DocumentNode(definitions=(kept, *fragments), loc=document.loc)
