"""Roots that no statement answers and no executor needs to: their own resolver does, and what it answers is printed.

Such a root reads no rows as they are (a sum over intervals, a rehearsed placement, what the process itself knows), so
it costs what its resolver costs either way; what is spared are the executor's microseconds for each field of the
answer. Its arguments are read anew from each request. What of a selection would need the executor (fields that await or
ask for the request themselves) is Unplanned, and so is the root then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from graphql import GraphQLObjectType
from graphql.execution.values import VariableValues

from resolvers.kernel.context import Context
from resolvers.planner.reading import Tables
from resolvers.planner.render import printed, shower
from resolvers.planner.selection import Selection, strawberry_field

Answer = Callable[[Context, VariableValues], Awaitable[bytes]]
"""A root's JSON for an operation. Raises what its resolver raises, and GraphQLError for arguments that are refused."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What such a resolver may use of strawberry's ``info``."""

    context: Context


def answering(tables: Tables, core: GraphQLObjectType, selection: Selection) -> Answer:
    """How a root is answered by its resolver. Raises Unplanned."""
    resolver = strawberry_field(core, selection.name).base_resolver
    show = shower(core.fields[selection.name].type, selection)

    async def answer(context: Context, variables: VariableValues) -> bytes:
        given = tables.converted(core, selection, variables)
        return printed(show(await resolver.wrapped_func(info=Asking(context), **given)))

    return answer
