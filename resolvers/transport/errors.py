"""What a client is told when something goes wrong, on every transport.

Invariant: each error that leaves the process has ``extensions.code`` from the closed set :class:`ErrorCode` and
``extensions.requestId``; its message was either written for clients or replaced. An exception that nobody declared fit
for clients is masked and logged with its whole chain under the same request id.

It deliberately does not know the domain's exception classes: any exception whose ``code`` is a word of the set is shown
with its message and its ``extensions`` (or ``data``) mapping; everything else is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import structlog
from graphql import GraphQLError

log = structlog.get_logger("stratograph.transport")

MASKED_MESSAGE: Final = "An unexpected error happened. It was logged under the request id."


class ErrorCode(StrEnum):
    """Why a request, an operation or a field failed. The set is closed; a new word is a change of the contract."""

    # The caller
    UNAUTHENTICATED = "UNAUTHENTICATED"  # no valid token was shown, or it expired or was revoked
    FORBIDDEN = "FORBIDDEN"  # the caller is known and may not do this
    LOCKED_OUT = "LOCKED_OUT"  # too many failed attempts to sign in
    RATE_LIMITED = "RATE_LIMITED"  # the caller's budget is spent: limit, remaining, requested, resetAt
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"  # this caller's sockets and streams: limit
    TOO_MANY_SUBSCRIPTIONS = "TOO_MANY_SUBSCRIPTIONS"  # operations at once on one socket: limit
    # The HTTP request
    BAD_REQUEST = "BAD_REQUEST"  # the body, the query string or a parameter has the wrong form
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"  # neither GET nor POST, or a mutation by GET
    NOT_ACCEPTABLE = "NOT_ACCEPTABLE"  # the Accept header leaves nothing that we speak
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"  # limit in bytes
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"  # POST takes application/json in UTF-8, nothing else
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"  # the body did not arrive in time: deadlineSeconds
    # The document
    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED"  # a syntax error
    GRAPHQL_VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"  # the document does not fit the schema
    BAD_USER_INPUT = "BAD_USER_INPUT"  # variables or arguments do not fit their types
    OPERATION_NOT_FOUND = "OPERATION_NOT_FOUND"  # operationName is missing among several, or names none
    OPERATION_NOT_ALLOWED = "OPERATION_NOT_ALLOWED"  # this transport does not carry this kind of operation
    PERSISTED_QUERY_NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"  # unknown hash: send the text along once
    PERSISTED_QUERY_NOT_SUPPORTED = "PERSISTED_QUERY_NOT_SUPPORTED"  # registering is off here
    TRUSTED_DOCUMENT_REQUIRED = "TRUSTED_DOCUMENT_REQUIRED"  # only documents of the manifest are run here
    # The limits; each carries limit and requested
    TOO_MANY_TOKENS = "TOO_MANY_TOKENS"
    TOO_DEEP = "TOO_DEEP"  # levels of nested fields
    TOO_MANY_ALIASES = "TOO_MANY_ALIASES"
    TOO_MANY_NODES = "TOO_MANY_NODES"  # selected fields, fragments expanded
    TOO_MANY_DUPLICATES = "TOO_MANY_DUPLICATES"  # one field selected again and again in the same place
    TOO_COSTLY = "TOO_COSTLY"  # static cost from page sizes
    TIMEOUT = "TIMEOUT"  # the operation's deadline passed: deadlineSeconds
    # The domain's refusals, where they reach a field instead of a payload's userErrors
    INVALID = "INVALID"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    IN_USE = "IN_USE"
    BUSY = "BUSY"
    INVALID_STATE = "INVALID_STATE"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    NO_VALID_HOST = "NO_VALID_HOST"
    NO_ADDRESS_LEFT = "NO_ADDRESS_LEFT"
    UNSUPPORTED = "UNSUPPORTED"
    IMAGE_REFUSED = "IMAGE_REFUSED"
    STALE_VERSION = "STALE_VERSION"
    IDEMPOTENCY_KEY_MISMATCH = "IDEMPOTENCY_KEY_MISMATCH"
    HYPERVISOR_ERROR = "HYPERVISOR_ERROR"
    CANCELLED = "CANCELLED"
    # The server
    UNAVAILABLE = "UNAVAILABLE"  # something we depend on is away or we are stopping: try again
    INTERNAL = "INTERNAL"  # a bug; the log has the chain under the request id


STATUS: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.LOCKED_OUT: 429,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.TOO_MANY_CONNECTIONS: 429,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.NOT_ACCEPTABLE: 406,
    ErrorCode.REQUEST_TIMEOUT: 408,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}
"""HTTP status of a request that was refused as a whole; 400 for every other code."""

OF_THE_DOCUMENT: Final = frozenset(
    {
        ErrorCode.GRAPHQL_PARSE_FAILED,
        ErrorCode.GRAPHQL_VALIDATION_FAILED,
        ErrorCode.BAD_USER_INPUT,
        ErrorCode.PERSISTED_QUERY_NOT_FOUND,
        ErrorCode.TOO_MANY_TOKENS,
        ErrorCode.TOO_DEEP,
        ErrorCode.TOO_MANY_ALIASES,
        ErrorCode.TOO_MANY_NODES,
        ErrorCode.TOO_MANY_DUPLICATES,
        ErrorCode.TOO_COSTLY,
    }
)
"""Refusals of a well-formed request: the legacy media type application/json answers them with 200, as its clients
expect, and an event stream answers them inside the stream."""


class RequestRefused(Exception):  # noqa: N818 - it is an answer, not a fault of the program
    """The whole request is refused before anything ran; the response has ``errors`` and no ``data``.

    ``status`` and ``headers`` are HTTP's; ``extensions`` of the constructor are the figures shown beside the code.
    """

    def __init__(
        self, code: ErrorCode, message: str, *, headers: Mapping[str, str] | None = None, **extensions: Any
    ) -> None:
        super().__init__(message)
        self.code = code
        self.headers = dict(headers or {})
        self.cost: dict[str, int] | None = None
        self.errors: list[GraphQLError] = [GraphQLError(message, extensions={"code": code, **extensions})]

    @classmethod
    def of(cls, code: ErrorCode, errors: Iterable[GraphQLError]) -> RequestRefused:
        """The refusal that carries graphql-core's own errors, all under one code."""
        listed = list(errors)
        refused = cls(code, listed[0].message)
        for error in listed:
            error.extensions = {**(error.extensions or {}), "code": code}
        refused.errors = listed
        return refused

    @property
    def status(self) -> int:
        """The HTTP status under application/graphql-response+json."""
        return STATUS.get(self.code, 400)


def code_of(error: BaseException | None) -> ErrorCode | None:
    """The code an exception declares, if that is a word of the closed set (SQLAlchemy's errors carry other codes)."""
    code = getattr(error, "code", None)
    return ErrorCode(code) if isinstance(code, str) and code in ErrorCode.__members__ else None


def refusal(exception: Exception, request_id: str) -> RequestRefused:
    """Any exception met outside of a resolver, as the refusal the client sees; logged when it is a bug."""
    if isinstance(exception, RequestRefused):
        return exception
    code = code_of(exception)
    if code is None:
        log.error("request_failed", request_id=request_id, exc_info=exception)
        return RequestRefused(ErrorCode.INTERNAL, MASKED_MESSAGE)
    headers = {"www-authenticate": "Bearer"} if code is ErrorCode.UNAUTHENTICATED else {}
    refused = RequestRefused(code, str(exception), headers=headers)
    refused.errors[0].extensions = {**_declared(exception), "code": code}
    return refused


def present(error: GraphQLError, request_id: str) -> dict[str, Any]:
    """One error as it is sent: ``message``, ``locations``, ``path`` and ``extensions`` with code and request id."""
    shown: dict[str, Any] = {"message": error.message}
    if error.locations:
        shown["locations"] = [location.formatted for location in error.locations]
    if error.path is not None:
        shown["path"] = error.path
    extensions = _public_extensions(error)
    if extensions is None:
        log.error("resolver_failed", request_id=request_id, path=error.path, exc_info=error.original_error or error)
        shown["message"] = MASKED_MESSAGE
        extensions = {"code": ErrorCode.INTERNAL}
    shown["extensions"] = {**extensions, "requestId": request_id}
    return shown


def _declared(exception: BaseException) -> dict[str, Any]:
    for name in ("extensions", "data"):
        declared = getattr(exception, name, None)
        if isinstance(declared, Mapping):
            return dict(declared)
    return {}


def _public_extensions(error: GraphQLError) -> dict[str, Any] | None:
    """What may be shown beside the message; None when the message itself must not be shown."""
    cause: BaseException | None = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    own = error.extensions or {}
    if isinstance(own.get("code"), str) and own["code"] in ErrorCode.__members__:
        return dict(own)
    if cause is not None and not isinstance(cause, GraphQLError):
        code = code_of(cause)
        return None if code is None else {**_declared(cause), "code": code}
    if isinstance(cause, GraphQLError) and cause.nodes:
        # graphql-core points at the argument's own node when a value in the request did not fit; an error without a
        # node is a value of ours that would not serialise, and its message would quote that value.
        return {**own, "code": ErrorCode.BAD_USER_INPUT}
    return None
