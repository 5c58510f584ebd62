"""The toy's callers: bearer tokens that are names, which tests can revoke or let expire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from resolvers.transport.app import Caller, Identity, OperationInfo
from tests.transport.toy import Context, Room


class Denied(Exception):  # noqa: N818 - an answer of the application
    """No such token."""

    def __init__(self, code: str) -> None:
        super().__init__("the token is not valid")
        self.code = code


@dataclass
class ToyIdentity:
    """A caller whose validity the desk decides."""

    key: str
    desk: Desk
    expires_at: datetime | None = None

    async def valid(self) -> bool:
        self.desk.checks += 1
        if self.desk.doubtful:
            raise ConnectionError("the database is away")
        return self.key not in self.desk.revoked


@dataclass
class Desk:
    """Answers who calls. Tokens ``bad``, ``forbidden`` and ``crash`` misbehave; ``short-N`` lives N milliseconds."""

    revoked: set[str] = field(default_factory=set)
    seen: list[Caller] = field(default_factory=list)
    checks: int = 0
    doubtful: bool = False

    async def authenticate(self, caller: Caller) -> Identity:
        self.seen.append(caller)
        token = caller.token
        if token is None:
            return ToyIdentity(f"anonymous {caller.ip}", self)
        if token == "crash":
            raise RuntimeError("secret: hunter2")
        if token in {"bad", "forbidden"} or token in self.revoked:
            raise Denied("FORBIDDEN" if token == "forbidden" else "UNAUTHENTICATED")
        if token.startswith("short-"):
            lifetime = timedelta(milliseconds=int(token.removeprefix("short-")))
            return ToyIdentity(token, self, datetime.now(UTC) + lifetime)
        return ToyIdentity(token, self)


def contexts(room: Room) -> Callable[[Identity, Caller, OperationInfo], Context]:
    """The toy's context builder; each context has its own serial number."""

    def build(identity: Identity, caller: Caller, info: OperationInfo) -> Context:
        if identity.key == "no-context":
            raise Denied("UNAUTHENTICATED")
        room.contexts += 1
        return Context(room, identity, caller, info, room.contexts)

    return build
