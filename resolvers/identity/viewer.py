"""Who asks, as the caller sees it: ``viewer``. Not a noun: it has no id, and it is never anybody else."""

from datetime import datetime
from typing import Any

import strawberry
from strawberry.types import Info

from gateway.identity import api_key, role, session, user
from gateway.kernel.access import Need, Subject
from gateway.kernel.noun import Noun
from resolvers.kernel import graph
from resolvers.kernel.context import Context
from resolvers.kernel.roots import query


async def _own(info: Info, noun: Noun[Any], key: int | None) -> Any:
    context: Context = info.context
    return graph.wrap(await context.one(noun, key))


async def _user(root: Any, info: Info) -> Any:
    return await _own(info, user.NOUN, root.subject.user_id)


async def _session(root: Any, info: Info) -> Any:
    return await _own(info, session.NOUN, root.subject.session_id)


async def _api_key(root: Any, info: Info) -> Any:
    return await _own(info, api_key.NOUN, root.subject.api_key_id)


async def _memberships(root: Any, info: Info) -> Any:
    context: Context = info.context
    return [graph.wrap(row) for row in await context.many(role.NOUN, "user_id", root.subject.user_id)]


async def _sessions(root: Any, info: Info) -> Any:
    context: Context = info.context
    if root.subject.api_key_id is not None:
        return []
    return [graph.wrap(row) for row in await context.read(lambda db: session.alive(db, root.subject.user_id))]


async def _api_keys(root: Any, info: Info) -> Any:
    context: Context = info.context
    return [graph.wrap(row) for row in await context.many(api_key.NOUN, "user_id", root.subject.user_id)]


async def _expires_at(root: Any, info: Info) -> datetime | None:
    context: Context = info.context
    by_key = root.subject.api_key_id is not None
    noun, key = (api_key.NOUN, root.subject.api_key_id) if by_key else (session.NOUN, root.subject.session_id)
    found = await context.one(noun, key)
    return found.expires_at if found is not None else None


def _admin(root: Any) -> bool:
    admin: bool = root.subject.admin
    return admin


_SESSION, _API_KEY = session.NOUN, api_key.NOUN
"""Known by other names within the class below, whose fields are called like the modules."""


def _one(noun: Noun[Any]) -> Any:
    return graph.lazy(noun) | None


def _many(noun: Noun[Any]) -> Any:
    return list[graph.lazy(noun)]  # type: ignore[misc]  # made at run time


def _field(resolve: Any, shown: Any, description: str) -> Any:
    return strawberry.field(resolver=resolve, graphql_type=shown, description=description)


@strawberry.type(description="Who you are to the cloud.")
class Viewer:
    """The caller."""

    subject: strawberry.Private[Subject]

    user = _field(_user, _one(user.NOUN), "You.")
    session = _field(_session, _one(_SESSION), "This session; null with an API key.")
    api_key = _field(_api_key, _one(_API_KEY), "The API key in use; null in a session.")
    memberships = _field(_memberships, _many(role.NOUN), "Your roles; with an API key, the one in the key's tenant.")
    sessions = _field(_sessions, _many(_SESSION), "Your sessions that are neither over nor revoked.")
    api_keys = _field(_api_keys, _many(_API_KEY), "Your API keys, revoked ones too.")
    expires_at = _field(_expires_at, datetime | None, "When the token in use ends; null for never.")

    admin = _field(_admin, bool, "Whether you operate the whole cloud by this token; an API key never does.")


def _token_end(subject: Subject) -> graph.OwnRows:
    if subject.api_key_id is not None:
        return graph.OwnRows(_API_KEY, "id", "api_key_id", "expires_at")
    return graph.OwnRows(_SESSION, "id", "session_id", "expires_at")


def _alive(subject: Subject) -> Any:
    if subject.api_key_id is not None:
        return []
    return graph.OwnRows(_SESSION, "user_id", "user_id", where=session.unrevoked, ahead="expires_at")


def _rows(noun: Noun[Any], key: str, subject: str) -> Any:
    return lambda _subject: graph.OwnRows(noun, key, subject)


_READS = graph.Own({
    "user": _rows(user.NOUN, "id", "user_id"),
    "session": _rows(_SESSION, "id", "session_id"),
    "apiKey": _rows(_API_KEY, "id", "api_key_id"),
    "memberships": _rows(role.NOUN, "user_id", "user_id"),
    "sessions": _alive,
    "apiKeys": _rows(_API_KEY, "user_id", "user_id"),
    "expiresAt": _token_end,
    "admin": lambda subject: subject.admin,
})  # fmt: skip


@query(Need.PUBLIC, "Who you are; null without a token.", shown_as=Viewer | None, reads=_READS)
async def viewer(info: Info) -> Any:
    """The caller, if anybody is known."""
    context: Context = info.context
    return Viewer(subject=context.subject) if context.subject.signed_in else None
