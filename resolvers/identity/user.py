"""Users in the graph."""

from __future__ import annotations

from gateway.identity import user
from resolvers.kernel.graph import Node, column, node


@node(user.NOUN)
class User(Node):
    """Somebody who can sign in."""

    name = column("The name to sign in with.")
