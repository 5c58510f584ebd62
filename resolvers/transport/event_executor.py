"""One event of a subscription after the other, by one executor.

graphql-core's own way collects an operation's fields anew for each event, and remembers what it collected below them by
the identity of what it began with: so it never finds it again, and a subscription keeps a little more for each event as
long as it lives. Here an operation's fields are collected once, for the variables are the same for all events.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import Any, cast

from graphql import ExecutionResult, GraphQLError, GraphQLObjectType
from graphql.execution import Executor
from graphql.execution.collect_fields import CollectedFields, collect_fields


class EventExecutor:
    """Executes events of the subscription that ``executor`` was built for."""

    __slots__ = ("_collected", "_executor")

    def __init__(self, executor: Executor[Any]) -> None:
        self._executor = executor
        self._collected: CollectedFields | None = None  # most subscriptions are told what others are, and need none

    async def executed(self, event: Any, context: Any) -> ExecutionResult:
        """What the operation says of one event, as ``context`` sees it ("ExecuteSubscriptionEvent" of the GraphQL
        specification).
        """
        each = self._executor.build_per_event_executor(event)
        each.context_value = context
        root = cast("GraphQLObjectType", each.schema.subscription_type)  # else there was no stream of events
        if self._collected is None:
            self._collected = collect_fields(
                each.schema, each.fragments, each.variable_values, root, each.operation, each.hide_suggestions
            )
        fields, deferred, _ = self._collected
        try:
            data: Any = each.execute_collected_root_fields(root, event, fields, False, deferred)
            if isawaitable(data):
                data = await data
        except GraphQLError as error:
            each.collected_errors.add(error, None)
            data = None
        return cast("ExecutionResult", each.build_response(data))  # a subscription defers nothing
