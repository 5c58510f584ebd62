"""Graphical consoles: a ticket that opens a server's screen once, within a minute, for who asked for it.

A ticket is 256 random bits of which only the SHA-256 is kept, and its row is the record of the console that it opened:
:func:`standing` is asked all the time while one is open, and what it does not name any more is closed. So a console
ends with the session or key that asked for it, with its user, with the role, and with the server. Whatever is wrong
with a ticket is told alike. The bytes themselves are not known here.
"""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from pydantic import field_validator
from sqlmodel import Field, Session, col, func, select

from gateway.compute import server as servers
from gateway.compute.host import Hypervisor
from gateway.compute.server import Server
from gateway.compute.server_state import STANDING, Action, Observed
from gateway.compute.standstill import check_host
from gateway.identity import audit
from gateway.identity.api_key import ApiKey
from gateway.identity.role import Membership
from gateway.identity.session import Session as SignIn
from gateway.identity.user import User
from gateway.kernel import clock, row
from gateway.kernel.access import Role, Subject
from gateway.kernel.command import AnyId, Retryable
from gateway.kernel.errors import NotFound, RateLimited
from gateway.kernel.row import Row

TICKET_LASTS: Final = timedelta(seconds=60)
CONSOLE_LASTS: Final = timedelta(hours=12)
_KEPT: Final = timedelta(hours=24)
MOST_UNUSED: Final = 40
"""Tickets that one user may hold at once: enough to open a screenful of consoles in one go."""
TICKET_CHARS: Final = 43
_TICKET_BYTES: Final = 32

SHOWN: Final = (Observed.RUNNING, Observed.PAUSED)
"""What a machine does while there is a screen to open."""
_STAYS: Final = (*SHOWN, Observed.UNKNOWN)
"""While an open one stays: a host that does not answer may show it all the same."""


class ConsoleProtocol(StrEnum):
    """What is spoken on a graphical console."""

    VNC = "VNC"
    """RFB, which every VNC client knows."""
    WEBMKS = "WEBMKS"
    """VMware's RFB, with messages of its own once both sides agreed on them."""


class Console(Row, table=True):
    """A ticket, and the console it opened. No foreign keys to what may go while it is open."""

    __tablename__ = "console"

    digest: str = Field(max_length=64, unique=True, repr=False)
    server_id: int = Field(sa_type=row.Key)
    host_id: int = Field(sa_type=row.Key)
    user_id: int = row.ref("user_account.id")
    session_id: int | None = Field(default=None, sa_type=row.Key)
    api_key_id: int | None = Field(default=None, sa_type=row.Key)
    origin: str | None = Field(default=None, max_length=255)
    expires_at: datetime
    opened_at: datetime | None = None


class ServerConsoleCreate(Retryable):
    """The server whose screen to open."""

    id: AnyId = Field(description="The server; it has to run.")
    origin: str | None = Field(
        default=None, max_length=255,
        description="The only web origin that may open it, such as https://cloud.example; by default any that may use "
        "this API, and programs that name none.",
    )  # fmt: skip

    @field_validator("origin")
    @classmethod
    def _origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme, _, place = value.lower().partition("://")
        if scheme not in {"http", "https"} or not place or set(place) & set("/?#@ "):
            raise ValueError("must be an origin, such as https://cloud.example")
        return value.lower()


@dataclass(frozen=True, slots=True)
class Opened:
    """What a good ticket opens. ``user`` counts how many consoles somebody has open."""

    console_id: int
    user: int
    server: Server


def create(session: Session, subject: Subject, command: ServerConsoleCreate) -> dict[str, Any]:
    """A ticket for a server's screen. Raises NotFound, Forbidden, InvalidState, Unsupported, RateLimited."""
    server = servers.reach(session, subject, command.id)
    if server.phase not in STANDING or server.observed not in SHOWN or server.host_id is None:
        raise servers.wrong_state(server, Action.OPEN_CONSOLE)
    check_host(session, server, "GRAPHICAL_CONSOLE", "id")
    now = clock.now(session)
    _bound(session, subject, now)
    ticket = secrets.token_urlsafe(_TICKET_BYTES)
    made = Console(
        digest=_digest(ticket),
        server_id=server.id,
        host_id=server.host_id,
        user_id=subject.user_id,
        session_id=subject.session_id,
        api_key_id=subject.api_key_id,
        origin=command.origin,
        expires_at=now + TICKET_LASTS,
    )
    session.add(made)
    url: str = session.info["settings"].url
    return {
        "url": f"{url}/console#{ticket}",
        "websocket_url": f"{url.replace('http', 'ws', 1)}/console/socket?ticket={ticket}",
        "protocol": ConsoleProtocol.WEBMKS if server.hypervisor is Hypervisor.ESXI else ConsoleProtocol.VNC,
        "expires_at": made.expires_at,
        "server": server,
    }


def _bound(session: Session, subject: Subject, now: datetime) -> None:
    """Refuse a user who hoards tickets. Raises RateLimited."""
    own = (Console.user_id == subject.user_id, col(Console.opened_at).is_(None), col(Console.expires_at) > now)
    if session.exec(select(func.count()).select_from(Console).where(*own)).one() >= MOST_UNUSED:
        raise RateLimited(
            f"You have {MOST_UNUSED} tickets for consoles that were not used yet.",
            retry_after_s=int(TICKET_LASTS.total_seconds()),
        )


def proven(session: Session, ticket: str, origin: str | None) -> Console:
    """What a ticket would open now. ``origin`` is the page's that shows it, None for a program. Raises NotFound for
    whatever is wrong with it; one that was shown by a wrong page stays good.
    """
    found = session.exec(select(Console).where(Console.digest == _digest(ticket))).first()
    good = (
        found is not None
        and found.opened_at is None
        and found.expires_at > clock.now(session)
        and found.origin in {None, origin}
        and found.id in standing(session, [found.id])
    )
    if found is None or not good:
        raise NotFound("This ticket was used, is over, or never was.")
    return found


def redeem(session: Session, ticket: str, origin: str | None, address: str) -> Opened:
    """Use a ticket, once and for all. Raises NotFound as :func:`proven` does."""
    found = proven(session, ticket, origin)
    found.opened_at = clock.now(session)
    server = session.get_one(Server, found.server_id)
    who = session.get_one(User, found.user_id)
    subject = Subject(user_id=who.id, user_name=who.name, api_key_id=found.api_key_id, address=address)
    audit.record(session, subject, "consoleOpen", "OK", None, {"server": server})
    return Opened(found.id, who.id, server)


def standing(session: Session, console_ids: Collection[int]) -> set[int]:
    """Those of these consoles that may (still) be open, by one statement."""
    now = clock.now(session)
    changes = (Role.MEMBER, Role.MANAGER)
    in_tenant = sa.exists().where(
        col(Membership.user_id) == col(Console.user_id),
        col(Membership.tenant_id) == col(Server.tenant_id),
        col(Membership.role).in_(changes),
    )
    signed_in = sa.exists().where(
        col(SignIn.id) == col(Console.session_id), col(SignIn.revoked_at).is_(None), col(SignIn.expires_at) > now
    )
    by_key = sa.exists().where(
        col(ApiKey.id) == col(Console.api_key_id),
        col(ApiKey.revoked_at).is_(None),
        sa.or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > now),
        col(ApiKey.tenant_id) == col(Server.tenant_id),
        col(ApiKey.role).in_(changes),
    )
    statement = (
        select(Console.id)
        .join(Server, sa.and_(col(Server.id) == col(Console.server_id), col(Server.host_id) == col(Console.host_id)))
        .join(User, col(User.id) == col(Console.user_id))
        .where(
            col(Console.id).in_(console_ids),
            col(Server.phase).in_(STANDING),
            col(Server.observed).in_(_STAYS),
            col(User.enabled),
            col(User.deleted_at).is_(None),
            sa.or_(col(User.admin), in_tenant),
            sa.or_(col(Console.session_id).is_(None), signed_in),
            sa.or_(col(Console.api_key_id).is_(None), by_key),
            sa.or_(col(Console.opened_at).is_(None), col(Console.opened_at) > now - CONSOLE_LASTS),
        )
    )
    return set(session.exec(statement))


def closed(session: Session, console_id: int) -> None:
    """It is over: forget it."""
    session.execute(sa.delete(Console).where(col(Console.id) == console_id))


def prune(session: Session) -> int:
    """Forget tickets that nobody used, and consoles whose process died with them; how many."""
    gone = session.execute(sa.delete(Console).where(col(Console.expires_at) < clock.now(session) - _KEPT))
    return int(getattr(gone, "rowcount", 0))


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
