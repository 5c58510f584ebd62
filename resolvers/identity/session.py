"""Sessions in the graph."""

from datetime import datetime

from gateway.identity import session, user
from gateway.kernel.access import Need
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.roots import mutation


@node(session.NOUN)
class Session(Node):
    """A sign-in from one device."""

    user = edge(user.NOUN, "user_id", "Who signed in.")
    created_at = column("When they did.")
    expires_at = column("When it ends by itself.")
    revoked_at = column("When it was ended before that; null when it was not.")
    last_used_at = column("When it was last used, to the minute.")
    address = column("The address it came from; empty when unknown.")
    user_agent = column("What the device called itself; empty when unknown.")


mutation(
    "sessionCreate", session.create, session.SessionCreate, Need.PUBLIC, "Sign in by name and password.",
    payload={
        "token": (str, "Send it as `Authorization: Bearer` from now on; it is told this once."),
        "expires_at": (datetime, "When the token ends."),
        "session": (session.NOUN, "The new session."),
        "user": (user.NOUN, "Who signed in."),
    },
    first=session.prove, secret=frozenset({"token"}),
)  # fmt: skip
mutation(
    "sessionRevoke", session.revoke, session.SessionRevoke, Need.SIGNED_IN,
    "Sign out: end this session, another one, or all of a user. It acts within a second.",
    payload={"sessions": ([session.NOUN], "The sessions that ended.")},
)  # fmt: skip
