"""Runs a GraphQL request of any transport: find the document, check, charge, build the context, execute, present.

Invariant: the order. Nothing is executed before the document is valid, within the limits and paid for; nothing is sent
but through :mod:`resolvers.transport.errors`; nothing runs past its deadline. The schema's own extensions take part
(operation, execution and resolve hooks, results) except in parsing and validating, which happen once per text, not
per request.

It deliberately does not use ``schema.execute``: that parses per request, runs the first of several operations, and
cannot tell a refused variable from a failed field.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Hashable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from inspect import isawaitable
from typing import Any, Final, NamedTuple, cast

from graphql import DocumentNode, ExecutionResult, GraphQLError, GraphQLSchema, OperationType
from graphql.execution import Executor, create_source_event_stream
from strawberry import Schema
from strawberry.execution import optimized_is_awaitable
from strawberry.extensions.runner import SchemaExtensionsRunner
from strawberry.types.execution import ExecutionContext
from strawberry.types.graphql import OperationType as StrawberryOperationType

from resolvers.transport.answers import Answer, encoded, presented, refused_answer
from resolvers.transport.audience import Audiences, Listener, Offer, Tail
from resolvers.transport.caller import Caller, ContextBuilder, Identity, OperationInfo
from resolvers.transport.documents import Documents
from resolvers.transport.errors import ErrorCode, RequestRefused, refusal
from resolvers.transport.event_executor import EventExecutor
from resolvers.transport.limits import too_much
from resolvers.transport.once import Once
from resolvers.transport.operations import DocumentCache, Operation
from resolvers.transport.rates import Budget
from resolvers.transport.requests import GraphQLRequest
from resolvers.transport.settings import Mixed, TransportSettings

_ANY_KIND: Final = frozenset(OperationType)
_CHARS_PER_UNIT: Final = 100


class Ready(NamedTuple):
    """A request that passed every check and was paid for."""

    operation: Operation
    variables: Mapping[str, Any]
    identity: Identity
    caller: Caller
    info: OperationInfo

    @property
    def extensions(self) -> dict[str, Any]:
        """What every response to it reports."""
        return _extensions_of(self.info.cost, self.info.cost_limit)


class Engine:
    """One schema and its settings, serving all transports of a process.

    ``core`` stands in for the schema's own types: what is not in it is neither shown, nor valid, nor run.
    """

    def __init__(
        self, schema: Schema, settings: TransportSettings, context: ContextBuilder, *, core: GraphQLSchema | None = None
    ) -> None:
        if schema.config.enable_experimental_incremental_execution:
            raise ValueError("@defer and @stream are off: the schema must not enable incremental execution")
        self.settings = settings
        self._schema = schema
        self._core = core or schema._schema  # noqa: SLF001 - strawberry offers no public way to its graphql-core schema
        self._context = context
        self._cache = DocumentCache(
            self._core, settings.limits, settings.introspection, entries_max=settings.cache_entries_max
        )
        self._documents = Documents(
            settings.manifest, trusted_only=settings.trusted_only, registering=settings.persisted_queries
        )
        self._extended = bool(schema.get_extensions())
        self._once: Once[Answer | None] = Once()
        self._audiences = Audiences()

    async def prepare(
        self,
        request: GraphQLRequest,
        identity: Identity,
        caller: Caller,
        *,
        kinds: frozenset[OperationType] = _ANY_KIND,
    ) -> Ready:
        """Everything before execution. Raises :class:`RequestRefused`.

        A text that must first be parsed and validated is paid for before that work, a refusal costs one unit.
        """
        charged = False
        try:
            text = self._documents.text(request)
            if not self._cache.knows(text):
                charged = True
                await self._charge(identity, 1 + len(text) // _CHARS_PER_UNIT)
            operation = self._operation(request, text, kinds)
            cost = self._cost(operation, request.variables)
        except RequestRefused:
            if not charged:
                await self._charge(identity, 1)
            raise
        budget = None if self.settings.rate_limiter is None else await self._charge(identity, max(1, cost))
        info = OperationInfo(
            name=operation.name,
            kind=operation.kind,
            cost=cost,
            cost_limit=self.settings.limits.cost,
            budget=budget,
            request_id=caller.request_id,
            transport=caller.transport,
        )
        return Ready(operation, request.variables, identity, caller, info)

    def _operation(self, request: GraphQLRequest, text: str, kinds: frozenset[OperationType]) -> Operation:
        document = self._cache.get(text)
        self._documents.learn(request)
        operation = document.select(request.operation_name)
        if operation.kind not in kinds:
            raise RequestRefused(
                ErrorCode.OPERATION_NOT_ALLOWED,
                f"This request cannot carry a {operation.kind.value}.",
                kind=operation.kind.value,
            )
        return operation

    def _cost(self, operation: Operation, variables: Mapping[str, Any]) -> int:
        cost, limit = operation.cost.of(variables), self.settings.limits.cost
        if cost > limit:
            refused = too_much(ErrorCode.TOO_COSTLY, "units of cost", cost, limit)
            refused.cost = {"requested": cost, "limit": limit}
            raise refused
        return cost

    async def _charge(self, identity: Identity, cost: int) -> Budget | None:
        limiter = self.settings.rate_limiter
        if limiter is None:
            return None
        budget = await limiter.spend(identity.key, cost)
        if not budget.allowed:
            raise RequestRefused(
                ErrorCode.RATE_LIMITED,
                "The budget of this caller is spent.",
                headers={"retry-after": str(budget.window_seconds)},
                limit=budget.limit,
                remaining=budget.remaining,
                requested=cost,
                resetAt=budget.reset_at.isoformat(),
            )
        return budget

    async def answer(self, ready: Ready) -> Answer:
        """Executes a query or mutation. Raises :class:`RequestRefused` when its first field is never reached."""
        try:
            async with asyncio.timeout(self.settings.operation_deadline_seconds) as deadline:
                return await self.unhurried(ready)
        except TimeoutError as error:
            if not deadline.expired():
                raise refusal(error, ready.caller.request_id) from error
            return self.timed_out(ready)

    async def unhurried(self, ready: Ready) -> Answer:
        """As :meth:`answer`, for a caller who cancels it at the deadline and then tells that it :meth:`timed_out`."""
        context = await self._built_context(ready)
        plan = self.settings.plan
        if plan is not None and ready.operation.kind is OperationType.QUERY:
            planned = await plan(ready.operation, ready.variables, context)
            if isinstance(planned, Mixed):
                return await self._mixed(ready, context, planned)
            if planned is not None:
                info = ready.info
                return Answer(executed=True, ready=b'{"data":%s%s' % (planned, _cost_told(info.cost, info.cost_limit)))
        return await self._executed(ready, context)

    async def _executed(self, ready: Ready, context: Any, document: DocumentNode | None = None) -> Answer:
        """The executor's answer; ``document`` stands in for the operation's own."""
        async with self._extensions(ready, context) as extended:
            executor = self._executor(ready, context, extended, document)
            result = cast("ExecutionResult", await _settled(executor.execute_operation()))
        return await self._presented(ready, result, extended)

    async def _mixed(self, ready: Ready, context: Any, mixed: Mixed) -> Answer:
        """The executor's answer to the rest of an operation, with what is ready in its places."""
        answer = await self._executed(ready, context, mixed.rest)
        data = answer.data
        if not isinstance(data, Mapping):
            return answer
        pieces = (
            b'"%s":%s' % (name.encode(), mixed.ready[name] if name in mixed.ready else encoded(data[name]))
            for name in mixed.order
        )
        return replace(answer, data=b"{%s}" % b",".join(pieces))

    async def stream(self, ready: Ready, offer: Offer | None = None) -> AsyncGenerator[Answer, None]:
        """Executes any operation as a stream of answers: one for a query or mutation, one per event of a subscription.

        With ``offer`` a subscription that has caught up is told together with others who are told the same; what was
        offered and taken is not in the stream then.

        Raises :class:`RequestRefused` before the first answer only. Closing the generator closes the event source.
        """
        if ready.operation.kind is not OperationType.SUBSCRIPTION:
            yield await self.answer(ready)
            return
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self.settings.operation_deadline_seconds):
                    context = await self._built_context(ready)
                    if offer is not None and not self._extended and hasattr(context, "together"):
                        context.together = True
                    extended = None
                    if self._extended:  # else nothing of it is held while the stream waits
                        extended = await stack.enter_async_context(self._extensions(ready, context))
                    executor = self._executor(ready, context, extended)
                    source = await _settled(create_source_event_stream(executor))
            except TimeoutError:
                yield self.timed_out(ready)
                return
            if isinstance(source, ExecutionResult):
                yield await self._presented(ready, source, extended)
                return
            if hasattr(source, "aclose"):
                await stack.enter_async_context(aclosing(source))
            view = View(self, ready, executor, extended)
            answers = await stack.enter_async_context(aclosing(self._events(view, source, offer)))
            async for answer in answers:
                yield answer

    async def _events(
        self, view: View, source: AsyncIterable[Any], offer: Offer | None
    ) -> AsyncGenerator[Answer, None]:
        ready = view.ready
        try:
            async for event in source:
                if not isinstance(event, Tail) or offer is None:
                    yield await self._event(view, event)
                elif await self._followed(view, event, offer):
                    return
        except Exception as error:  # noqa: BLE001 - the source's failure is told like a field's, then the stream ends
            failed = error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)
            yield Answer(
                executed=True, errors=presented([failed], ready.caller.request_id), extensions=ready.extensions
            )

    async def _followed(self, view: View, tail: Tail, offer: Offer) -> bool:
        ready = view.ready
        return await self._audiences.follow(
            tail, Listener(view, ready.identity, lambda: self._built_context(ready), offer, tail.place)
        )

    async def _event(self, view: View, event: Any) -> Answer:
        try:
            async with asyncio.timeout(self.settings.operation_deadline_seconds):
                context = await self._built_context(view.ready)
                key = view.shared_as(context, event)
                shared = None
                if key is not None:
                    shared = await self._once.get(key, lambda: self._for_all(view, context, event))
                return shared if shared is not None else await self.rendered(view, context, event)
        except TimeoutError:
            return self.timed_out(view.ready)

    async def rendered(self, view: View, context: Any, event: Any) -> Answer:
        """One event, as ``context`` sees it."""
        result = await view.events.executed(event, context)
        return await self._presented(view.ready, result, view.extended)

    async def _for_all(self, view: View, context: Any, event: Any) -> Answer | None:
        """What all who see the same get. None when it has errors: those carry the request id of each operation."""
        answer = await self.rendered(view, context, event)
        return None if answer.errors else Answer(executed=True, ready=answer.encoded())

    async def _built_context(self, ready: Ready) -> Any:
        try:
            made = self._context(ready.identity, ready.caller, ready.info)
            return await made if hasattr(made, "__await__") else made
        except Exception as error:
            raise refusal(error, ready.caller.request_id) from error

    def _executor(
        self, ready: Ready, context: Any, extended: Extended | None, document: DocumentNode | None = None
    ) -> Executor[Any]:
        built = cast("type[Executor[Any]]", self._schema.execution_context_class).build(
            self._core,
            document or ready.operation.document,
            None,
            context,
            dict(ready.variables),
            ready.operation.name,
            middleware=extended.middleware if extended else None,
            is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]  # strawberry's own predicate is typed plainly
            hide_suggestions=not self.settings.introspection,
            operation_extensions=None,
        )
        if isinstance(built, list):
            refused = RequestRefused.of(ErrorCode.BAD_USER_INPUT, built)
            refused.cost = ready.extensions["cost"]
            raise refused
        return built

    @asynccontextmanager
    async def _extensions(self, ready: Ready, context: Any) -> AsyncIterator[Extended | None]:
        if not self._extended:
            yield None
            return
        schema = self._schema
        execution = ExecutionContext(
            query=ready.operation.text,
            schema=schema,
            allowed_operations=list(StrawberryOperationType),
            context=context,
            variables=dict(ready.variables),
            provided_operation_name=ready.operation.name,
            graphql_document=ready.operation.document,
        )
        extensions = schema.get_extensions()
        for extension in extensions:
            extension.execution_context = execution
        runner = schema.create_extensions_runner(execution, extensions)
        middleware = schema._get_middleware_manager(extensions)  # noqa: SLF001 - no public way
        async with runner.operation(), runner.executing():
            yield Extended(runner, execution, middleware)

    async def _presented(self, ready: Ready, result: ExecutionResult, extended: Extended | None) -> Answer:
        own = await extended.runner.get_extensions_results(extended.execution) if extended else {}
        return Answer(
            result.data,
            executed=True,
            errors=presented(result.errors or (), ready.caller.request_id),
            extensions={**own, **ready.extensions},
        )

    def timed_out(self, ready: Ready) -> Answer:
        """What is told of an operation that took too long."""
        seconds = self.settings.operation_deadline_seconds
        message = f"The operation did not finish within {seconds:g} seconds."
        if ready.operation.kind is OperationType.MUTATION:
            message += " What it was doing may still take effect; retry with the same idempotency key."
        refused = RequestRefused(ErrorCode.TIMEOUT, message, deadlineSeconds=seconds)
        answer = refused_answer(refused, ready.caller.request_id)
        return Answer(executed=True, errors=answer.errors, extensions=ready.extensions)


class View:
    """One subscription at work. Those whose ``shape`` (text, and variables but the root field's own) and contexts'
    ``viewer`` are equal see every event that has a ``shared`` name alike, so it is rendered once for them.
    """

    __slots__ = ("_engine", "events", "extended", "personal", "ready", "shape")

    def __init__(self, engine: Engine, ready: Ready, executor: Executor[Any], extended: Extended | None) -> None:
        self._engine = engine
        self.ready = ready
        self.events = EventExecutor(executor)
        self.extended = extended
        self.personal = False
        operation = ready.operation
        shown = {name: value for name, value in ready.variables.items() if name in operation.shown_by}
        text = json.dumps(shown, sort_keys=True, default=repr)
        self.shape = (operation.text, operation.name, text, ready.info.cost)

    def shared_as(self, context: Any, event: Any) -> Hashable | None:
        """The key of what others may get as well; None for what is rendered for this subscriber alone."""
        viewer, name = getattr(context, "viewer", None), getattr(event, "shared", None)
        return None if viewer is None or name is None or self.extended is not None else (name, viewer, self.shape)

    async def shown(self, item: Any, context: Any) -> bytes | None:
        """The response for an audience; None when it has errors or is personal."""
        try:
            async with asyncio.timeout(self._engine.settings.operation_deadline_seconds):
                answer = await self._engine.rendered(self, context, item)
        except TimeoutError:
            return None
        if context.personal and not self.personal:
            self.personal = True
            return None
        return None if answer.errors else answer.encoded()


@dataclass(frozen=True, slots=True)
class Extended:
    """The schema's own extensions at work for one operation."""

    runner: SchemaExtensionsRunner
    execution: ExecutionContext
    middleware: Any


@lru_cache(maxsize=1024)
def _cost_told(cost: int, limit: int) -> bytes:
    """The end of a response without errors, behind its data."""
    return b"," + encoded({"extensions": _extensions_of(cost, limit)})[1:]


def _extensions_of(cost: int, limit: int) -> dict[str, Any]:
    return {"cost": {"requested": cost, "limit": limit}}


async def _settled(value: Any) -> Any:
    return await value if isawaitable(value) else value
