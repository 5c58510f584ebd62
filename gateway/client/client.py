"""The client: one address, one token, and the three ways to talk (documents, subscriptions, uploads).

What may be asked twice is asked twice: with ``patience_s`` a query, or a mutation with an idempotency key, is sent
again while the cloud restarts. A mutation without a key never is. TLS is verified, against ``ca_file`` where a cloud
has an authority of its own; there is no way to switch that off.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2

from gateway.client import problem
from gateway.client.problem import FOLLOW, JobFailed, Problem, Unreachable
from gateway.client.stream import Stream
from gateway.client.upload import Progress, send

CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0
_MAX_ANSWER_BYTES: Final = 64 << 20
_AGAIN_S: Final = (0.1, 0.2, 0.4, 0.8, 1.5)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_RESTARTING: Final = frozenset({502, 503, 504})
ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "STUCK"})


class Client:
    """A cloud, as one caller sees it. ``url`` is the gateway's (``https://cloud.example``), ``token`` a session's or an
    API key. Use it as a context manager, or call :meth:`close`.

    ``patience_s``: for how long a cloud that does not answer is asked again, where asking again does no harm.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca_file: Path | None = None,
        timeout_s: float = ANSWER_S,
        patience_s: float = 0.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"not an http or https address: {url}")
        self.url = url.rstrip("/")
        self.token = token
        self.patience_s = patience_s
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._proxied = parts.hostname not in _LOOPBACK
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(timeout_s, connect=CONNECT_S),
            verify=self._tls if self._tls is not None else True,
            trust_env=self._proxied,
            headers={"user-agent": "stratograph-client"},
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ documents

    def run(self, document: str, variables: Mapping[str, Any] | None = None, **named: Any) -> dict[str, Any]:
        """Send a document and answer with its ``data``. Variables may also be given by name.

        Raises :class:`Problem` for its first error or user error, :class:`Unreachable` when the cloud does not answer.
        """
        values = {**(variables or {}), **named}
        harmless = not document.lstrip().startswith("mutation") or _keyed(values)
        until = time.monotonic() + (self.patience_s if harmless else 0.0)
        for attempt in range(1 << 20):
            try:
                return _data(self.answer(document, values))
            except Unreachable:
                pause = _AGAIN_S[min(attempt, len(_AGAIN_S) - 1)]
                if time.monotonic() + pause >= until:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def do(self, mutation: str, selection: str, **given: Any) -> dict[str, Any]:
        """Send the mutation of that name with the input ``given`` and answer with its payload.

        >>> client.do("networkCreate", "network { id }", name="net", tenantId=tenant)["network"]["id"]
        """
        if self.patience_s and mutation not in {"sessionCreate", "sessionRevoke"}:
            given.setdefault("idempotencyKey", uuid4().hex)
        payload: dict[str, Any] = self.run(problem.mutation(mutation, selection), {"input": given})[mutation]
        return payload

    def sign_in(self, username: str, password: str) -> None:
        """Get a session's token and use it from now on. Raises Problem, such as UNAUTHENTICATED or LOCKED_OUT."""
        self.token = None
        self.token = str(self.do("sessionCreate", "token", username=username, password=password)["token"])

    def sign_out(self) -> None:
        """End the session; the token is worth nothing afterwards."""
        if self.token is not None:
            self.do("sessionRevoke", "sessions { id }")
            self.token = None

    def answer(
        self, document: str, variables: Mapping[str, Any] | None = None, operation: str | None = None
    ) -> dict[str, Any]:
        """Send a document once and answer with all that comes back: ``data``, ``errors``, ``extensions``.

        ``operation`` names the one to run of a document with several. Raises :class:`Unreachable`, and
        :class:`Problem` with the code NOT_A_CLOUD when what answers is no Stratograph.
        """
        headers = {"accept": "application/graphql-response+json, application/json"}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        body: dict[str, Any] = {"query": document, "variables": dict(variables or {})}
        if operation is not None:
            body["operationName"] = operation
        try:
            answer = self._http.post(f"{self.url}/graphql", json=body, headers=headers)
        except httpx2.ConnectError as error:
            raise Unreachable(f"{self.url} takes no connection: {error}") from error
        except httpx2.TransportError as error:
            raise Unreachable(f"{self.url} did not answer: {type(error).__name__} {error}".rstrip()) from error
        return _body(answer, self.url)

    # ------------------------------------------------------------------------------------------ subscriptions

    def subscribe(
        self,
        document: str,
        variables: Mapping[str, Any] | None = None,
        *,
        reconnect_s: float = 30.0,
        deadline_s: float | None = None,
        operation: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The ``data`` of each thing that is pushed, until the cloud says that there is no more.

        A connection that breaks is opened again within ``reconnect_s``: with a variable ``after`` it goes on behind the
        last ``cursor`` that was seen and misses nothing; without, it begins with the present state again. Close the
        iterator to end it before. Raises :class:`Problem`; Unreachable with the code TIMEOUT after ``deadline_s``.
        """
        stream = Stream(self.url, self.token, self._tls, proxied=self._proxied, operation=operation)
        return stream.values(document, dict(variables or {}), reconnect_s=reconnect_s, deadline_s=deadline_s)

    def follow(
        self,
        job_id: str,
        on_change: Callable[[dict[str, Any]], object] | None = None,
        *,
        deadline_s: float | None = None,
        reconnect_s: float = 30.0,
    ) -> dict[str, Any]:
        """Wait until a job has ended and answer with it; ``on_change`` sees each of its states.

        Raises :class:`JobFailed` unless it SUCCEEDED.
        """
        job: dict[str, Any] = {}
        pushed = self.subscribe(FOLLOW, {"id": job_id}, reconnect_s=reconnect_s, deadline_s=deadline_s)
        with closing(pushed):  # type: ignore[type-var]  # a generator, though only promised to be an iterator
            for data in pushed:
                job = data["jobChanged"]
                if on_change is not None:
                    on_change(job)
                if job["status"] in ENDED:
                    break
        if job.get("status") != "SUCCEEDED":
            raise JobFailed(job) if job else Problem("NOT_FOUND", "The job is not there.")
        return job

    # ------------------------------------------------------------------------------------------ uploads

    def upload(self, url: str, path: Path, progress: Progress | None = None, *, patience_s: float = 30.0) -> None:
        """Send a file to an upload link, from the byte on at which an earlier try ended.

        ``progress`` is told the bytes that are there and all bytes. Raises :class:`Problem`.
        """
        send(self._http, url, path, progress, patience_s=patience_s)


def _keyed(variables: Mapping[str, Any]) -> bool:
    given = variables.get("input")
    return isinstance(given, Mapping) and bool(given.get("idempotencyKey"))


def _body(answer: httpx2.Response, url: str) -> dict[str, Any]:
    """The whole GraphQL answer. Raises Problem, Unreachable."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or ("data" not in body and not body.get("errors")):
        message = f"{url} answered {answer.status_code} and not as a Stratograph does"
        if answer.status_code in _RESTARTING:
            raise Unreachable(message)
        raise Problem("NOT_A_CLOUD", message)
    return body


def _data(body: Mapping[str, Any]) -> dict[str, Any]:
    """The ``data`` of an answer. Raises Problem, Unreachable."""
    if body.get("errors"):
        found = problem.of_errors(body["errors"])
        if found.code == "UNAVAILABLE":
            raise Unreachable(found.message, code=found.code)
        raise found
    data: dict[str, Any] = body["data"]
    for payload in data.values():
        if isinstance(payload, dict) and payload.get("userErrors"):
            raise problem.of_user_errors(payload["userErrors"])
    return data
