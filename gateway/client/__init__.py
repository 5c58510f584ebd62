"""A client of the public API: GraphQL over HTTP and WebSocket, and resumable uploads to signed links.

It knows the API and nothing else of this project: no database, no settings, no driver. The command line and the demo
are built on it, and so may anything be that talks to a cloud somewhere else. Changes are pushed to it by subscriptions;
it never asks again and again. Synchronous; one ``Client`` may be used by several threads.
"""

from gateway.client.client import Client
from gateway.client.problem import JobFailed, Problem, Unreachable

__all__ = ["Client", "JobFailed", "Problem", "Unreachable"]
