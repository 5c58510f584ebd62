"""A client of the public API: GraphQL over HTTP and WebSocket, and resumable uploads to signed links.

It knows the API and nothing else of this project: no database, no settings, no driver. The command line and the demo
are built on it, and so may anything be that talks to a cloud somewhere else. Changes are pushed to it by subscriptions;
it never asks again and again. Synchronous; one ``Client`` may be used by several threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.client.client import Client
    from gateway.client.problem import JobFailed, Problem, Unreachable

__all__ = ["Client", "JobFailed", "Problem", "Unreachable"]


def __getattr__(name: str) -> Any:
    """Each name when it is first wanted: ``stratograph --help`` needs no HTTP library."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Client":
        from gateway.client.client import Client

        return Client
    from gateway.client import problem

    return getattr(problem, name)
