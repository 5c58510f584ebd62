"""Users in the graph."""

from datetime import datetime
from typing import Any

import strawberry
from strawberry.types import Info

from gateway.identity import account, lockout, role, user
from gateway.kernel.access import Need
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Node, OperatorsOnly, Rows, children, column, node, spelt
from resolvers.kernel.roots import mutation, node_query


async def _locked_until(root: Any, info: Info) -> datetime | None:
    context: Context = info.context
    if not context.subject.admin:
        return None
    found: datetime | None = await context.batch("locked_until", lockout.locked_until).load(root.row.name)
    return found


_SHUT_OUT = Rows(
    lockout.WrongPassword, "digest", column="locked_until", own="name", by_digest=True, ahead="locked_until", one=True
)  # fmt: skip


@node(user.NOUN)
class User(Node):
    """Somebody who can sign in."""

    name = column("The name to sign in with, in lower case.")
    full_name = column("What people call them.")
    email = column("Where mail reaches them; empty when unknown.")
    admin = column("Whether they operate the whole cloud.")
    enabled = column("Whether they may sign in.")
    memberships = children(role.NOUN, "user_id", "Their roles in the tenants that you see.")
    password_changed_at = column("When they got their present password.")
    created_at = column("When they were made.")
    updated_at = column("When they were last changed.")
    version = column("Rises with every change; give it as `expectedVersion`.")
    locked_until = spelt(OperatorsOnly(_SHUT_OUT))(
        strawberry.field(
            resolver=_locked_until,
            graphql_type=datetime | None,
            description="Until when too many wrong passwords shut them out; null when not, or if you are no operator.",
        )
    )


node_query(user.NOUN, "A user by id: yourself, who shares a tenant with you, or anybody for an operator.")
connection_query(
    "users", Listing(user.NOUN, user.find, user.Filter, user.ORDERS),
    "The users you see: yourself, who shares a tenant with you, or all for an operator.",
)  # fmt: skip
_PAYLOAD = {"user": (user.NOUN, "The user as it is now.")}
mutation(
    "userCreate", user.create, user.UserCreate, Need.ADMIN, "Make a user.",
    payload={"user": (user.NOUN, "The new user.")}, first=user.hashed,
)  # fmt: skip
mutation("userUpdate", account.update, account.UserUpdate, Need.ADMIN, "Change a user.", payload=_PAYLOAD)
mutation(
    "userDelete", account.delete, account.UserDelete, Need.ADMIN,
    "Delete a user, with all sessions, API keys and memberships.",
    payload={"user": (user.NOUN, "The user as it was left, without personal data.")},
)  # fmt: skip
mutation(
    "userUnlock", account.unlock, account.UserUnlock, Need.ADMIN,
    "Let a user in again who gave too many wrong passwords.", payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "userPasswordSet", account.set_password, account.UserPasswordSet, Need.SIGNED_IN,
    "Change a password: your own, or anybody's for an operator. All other sessions of that user end.",
    payload=_PAYLOAD, first=account.choose,
)  # fmt: skip
