"""Root fields: the only way into the schema, each with the rule of who may call it.

A mutation is one declaration: its domain function, its command, what its payload holds, and its need. The frame around
it is the same for all: check the need, parse, look the idempotency key up, one unit of work, one audit record (denied
ones too), and refusals as data. A root field that is not declared here does not exist.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Optional

import strawberry
from pydantic.alias_generators import to_camel
from sqlmodel import Session
from strawberry.types import Info

from gateway.identity import audit
from gateway.jobs import idempotency
from gateway.kernel import errors
from gateway.kernel.access import Need, Subject, check
from gateway.kernel.command import Command
from gateway.kernel.errors import Refusal, Refusals
from gateway.kernel.noun import Noun
from gateway.kernel.row import Row
from gateway.kernel.secretbox import Sealed
from resolvers.kernel import graph, inputs, problems, scalars
from resolvers.kernel.context import Context, on_thread


@dataclass(frozen=True, slots=True)
class Root:
    """One root field and its rule. ``command`` is a mutation's input, ``reads`` what a read plan reads instead."""

    operation: str
    name: str
    need: Need
    field: Any
    command: type[Command] | None = None
    reads: Any = None


ROOTS: dict[tuple[str, str], Root] = {}


def add(root: Root) -> None:
    """Put a root field into the schema."""
    if (root.operation, root.name) in ROOTS:
        raise TypeError(f"two root fields are called {root.operation}.{root.name}")
    ROOTS[root.operation, root.name] = root


def query(
    need: Need, description: str, *, name: str | None = None, shown_as: Any = None, reads: Any = None
) -> Callable[[Any], Any]:
    """Declare a root query by its resolver (``async def f(info, ...)``), and beside it how a read plan reads the same:
    a noun for the object of an id, a listing for a page.
    """
    return _declare("Query", need, description, name, shown_as, reads)


def subscription(
    need: Need, description: str, *, name: str | None = None, shown_as: Any = None
) -> Callable[[Any], Any]:
    """Declare a root subscription by its resolver, an async generator function ``f(info, ...)``."""
    return _declare("Subscription", need, description, name, shown_as)


def _declare(  # noqa: PLR0917 - the one place behind query and subscription
    operation: str, need: Need, description: str, name: str | None, shown_as: Any, reads: Any = None
) -> Callable[[Any], Any]:
    def keep(resolve: Any) -> Any:
        called = name or to_camel(resolve.__name__)
        make = strawberry.subscription if operation == "Subscription" else strawberry.field
        field = make(
            resolver=resolve, name=called, description=description, graphql_type=shown_as, extensions=[Guard(need)]
        )
        add(Root(operation, called, need, field, reads=reads))
        return resolve

    return keep


class Guard(strawberry.extensions.FieldExtension):
    """Refuses a caller before the resolver is entered."""

    def __init__(self, need: Need) -> None:
        self.need = need

    def resolve(self, next_: Any, source: Any, info: Info, **given: Any) -> Any:
        """Check, then go on."""
        check(info.context.subject, self.need)
        return next_(source, info, **given)

    async def resolve_async(self, next_: Any, source: Any, info: Info, **given: Any) -> Any:
        """Check, then go on."""
        check(info.context.subject, self.need)
        found = next_(source, info, **given)
        return await found if hasattr(found, "__await__") else found


def node_query(noun: Noun[Any], description: str, need: Need = Need.SIGNED_IN) -> None:
    """Declare ``noun(id)``: the object, or null when there is none or the caller may not see it."""

    async def resolve(info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id.")]) -> Any:  # noqa: A002 - the argument's public name
        context: Context = info.context
        try:
            return graph.wrap(await context.read(lambda session: noun.get(session, context.subject, id)))
        except errors.NotFound:
            return None

    query(need, description, name=to_camel(noun.prefix), shown_as=Optional[graph.lazy(noun)], reads=noun)(resolve)


Outcome = Any
"""What a domain function answers: a row, or a mapping of payload names to rows, lists of rows and plain values."""

Work = Callable[[Session, Subject, Any], Outcome]


@dataclass(frozen=True, slots=True)
class Frame:
    """A mutation: ``payload`` maps names to a noun, a list with one noun, or a plain type with a description.
    ``first`` runs before the unit of work, outside any transaction (hashing a password); its answer reaches ``work`` as
    a fourth argument. ``secret`` payload names are never kept, so a retry answers null for them.
    """

    name: str
    work: Callable[..., Outcome]
    command: type[Command]
    need: Need
    description: str
    payload: Mapping[str, Any]
    first: Callable[[Any, Subject, Any], Any] | None = None
    secret: frozenset[str] = frozenset()


def mutation(
    name: str,
    work: Callable[..., Outcome],
    command: type[Command],
    need: Need,
    description: str,
    *,
    payload: Mapping[str, Any],
    first: Callable[[Any, Subject, Any], Any] | None = None,
    secret: frozenset[str] = frozenset(),
) -> None:
    """Declare a mutation."""
    frame = Frame(name, work, command, need, description, payload, first, secret)
    called = name[0].upper() + name[1:]
    shown = _payload_type(frame, f"{called}Payload")
    given = inputs.input_type(command, f"{called}Input")

    async def resolve(info: Info, input: Any) -> Any:  # noqa: A002 - the argument's public name
        return shown(**await _run(frame, info.context, input))

    resolve.__annotations__ = {
        "info": Info,
        "input": Annotated[given, strawberry.argument(description="What to do.")],
        "return": shown,
    }
    add(
        Root("Mutation", name, need, strawberry.mutation(resolver=resolve, name=name, description=description), command)
    )


def _payload_type(frame: Frame, name: str) -> Any:
    body: dict[str, Any] = {"__annotations__": {}, "__doc__": f"What `{frame.name}` answers."}
    for key, (shown, description) in frame.payload.items():
        if isinstance(shown, Noun):
            kind: Any = Optional[graph.lazy(shown)]
        elif isinstance(shown, list):
            kind = list[graph.lazy(shown[0])]  # type: ignore[misc]  # made at run time
        else:
            kind = Optional[graph.output(shown)]
        body["__annotations__"][key] = kind
        empty: dict[str, Any] = {"default_factory": list} if isinstance(shown, list) else {"default": None}
        body[key] = strawberry.field(description=description, **empty)
    body["__annotations__"]["user_errors"] = list[problems.UserError]
    body["user_errors"] = strawberry.field(description="Why nothing was done; empty when it was.", default_factory=list)
    return strawberry.type(type(name, (), body), name=name, description=body["__doc__"])


async def _run(frame: Frame, context: Context, given: Any) -> dict[str, Any]:
    subject = context.subject
    command: Command | None = None
    try:
        check(subject, frame.need)
        command = inputs.command_of(frame.command, given)
        outcome, ready = None, ()
        if frame.first is not None:
            outcome, ready = await on_thread(lambda: _before(frame, context, command))
        if outcome is None:
            outcome = await context.writing(lambda: _carry_out(frame, context, command, ready))
    except (Refusal, Refusals) as refused:
        refusals = refused.refusals if isinstance(refused, Refusals) else (refused,)
        code = refusals[0].code.value
        command = command or _as_asked(frame, given)
        await context.write(lambda session: audit.record(session, subject, frame.name, code, command))
        if isinstance(refused, errors.Unauthenticated) and frame.need is not Need.PUBLIC:
            raise
        return {"user_errors": [problems.show(each) for each in refusals]}
    except Exception:
        await context.write(lambda session: audit.record(session, subject, frame.name, "INTERNAL", command))
        raise
    return _shown(outcome)


def _as_asked(frame: Frame, given: Any) -> Command | None:
    """What a denied caller asked for, for the audit trail; None when it is no valid command."""
    try:
        return inputs.command_of(frame.command, given)
    except Refusals:
        return None


def _asked(frame: Frame, context: Context, command: Any) -> idempotency.Asked | None:
    key = getattr(command, "idempotency_key", None)
    return idempotency.Asked(frame.name, key, _digest(context, frame.name, command)) if key else None


def _before(frame: Frame, context: Context, command: Any) -> tuple[dict[str, Any] | None, tuple[Any, ...]]:
    """What a mutation does before its unit of work, as it takes long: the answer that was given before if there is one,
    else what the work gets besides the command.
    """
    subject, db, asked = context.subject, context.services.db, _asked(frame, context, command)
    if asked is not None:
        with db.read() as session:
            kept = idempotency.answer(session, subject, asked)
        if kept is not None:
            return kept, ()
    return None, (frame.first(db, subject, command),)  # type: ignore[misc]  # only asked where there is one


def _carry_out(frame: Frame, context: Context, command: Any, ready: tuple[Any, ...]) -> dict[str, Any]:
    subject = context.subject
    asked = _asked(frame, context, command)

    def work(session: Session) -> dict[str, Any]:
        if asked is not None:
            kept = idempotency.answer(session, subject, asked)
            if kept is not None:
                return kept
            idempotency.reserve(session, subject, asked)
        outcome = _as_mapping(frame, frame.work(session, subject, command, *ready))
        session.flush()
        if asked is not None:
            idempotency.keep(session, subject, asked, {k: v for k, v in outcome.items() if k not in frame.secret})
        audit.record(session, subject, frame.name, "OK", command, outcome)
        return outcome

    return context.services.db.run(work)


def _as_mapping(frame: Frame, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Mapping):
        return dict(outcome)
    if outcome is None:
        return {}
    return {next(iter(frame.payload)): outcome}


def _shown(outcome: Mapping[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, Row):
            return graph.wrap(value)
        if isinstance(value, list):
            return [one(each) for each in value]
        return value

    return {name: one(value) for name, value in outcome.items()}


def _digest(context: Context, name: str, command: Command) -> str:
    """What tells two inputs apart, keyed: a plain digest of an input with a password in it would let it be guessed."""
    values = command.model_dump(mode="json", exclude={"idempotency_key"}, exclude_unset=True)
    with context.services.db.read() as session:
        box: Sealed = session.info["sealed"]
    return box.fingerprint(json.dumps([name, values], sort_keys=True))


__all__ = ["ROOTS", "Frame", "Guard", "Root", "mutation", "node_query", "query", "scalars", "subscription"]
