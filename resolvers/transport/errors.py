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
from typing import Any, Final, Self

import structlog
from graphql import GraphQLError

log = structlog.get_logger("stratograph.transport")

_LONGEST_MESSAGE_CHARS: Final = 1_000  # graphql-core quotes literals, and a body may hold a large one
MASKED_MESSAGE: Final = "An unexpected error happened. It was logged under the request id."


class ErrorCode(StrEnum):
    """Why a request, an operation or a field failed. The set is closed; a new word is a change of the contract.

    ``description`` says what happened and names the figures that stand beside the code.
    """

    description: str

    def __new__(cls, value: str, description: str) -> Self:
        """A word and what it means."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    # The caller
    UNAUTHENTICATED = "UNAUTHENTICATED", "No valid token was shown, or it expired or was revoked."
    FORBIDDEN = "FORBIDDEN", "The caller is known and may not do this."
    LOCKED_OUT = "LOCKED_OUT", "Too many failed attempts to sign in."
    RATE_LIMITED = "RATE_LIMITED", "The caller's budget is spent: limit, remaining, requested, resetAt."
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS", "The caller has as many sockets and streams as it may: limit."
    TOO_MANY_SUBSCRIPTIONS = "TOO_MANY_SUBSCRIPTIONS", "The socket carries as many operations as it may: limit."
    # The HTTP request
    BAD_REQUEST = "BAD_REQUEST", "The body, the query string or a parameter has the wrong form."
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED", "Neither GET nor POST, or a mutation by GET."
    NOT_ACCEPTABLE = "NOT_ACCEPTABLE", "The Accept header leaves nothing that the server writes."
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE", "The body is too large: limit in bytes."
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE", "POST takes application/json in UTF-8, nothing else."
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT", "The body did not arrive in time: deadlineSeconds."
    # The document
    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED", "A syntax error."
    GRAPHQL_VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED", "The document does not fit the schema."
    BAD_USER_INPUT = "BAD_USER_INPUT", "Variables or arguments do not fit their types."
    OPERATION_NOT_FOUND = "OPERATION_NOT_FOUND", "operationName is missing among several operations, or names none."
    OPERATION_NOT_ALLOWED = "OPERATION_NOT_ALLOWED", "This request cannot carry this kind of operation: kind."
    PERSISTED_QUERY_NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND", "The hash is unknown: send the text along once."
    PERSISTED_QUERY_NOT_SUPPORTED = "PERSISTED_QUERY_NOT_SUPPORTED", "Clients cannot register documents here."
    TRUSTED_DOCUMENT_REQUIRED = "TRUSTED_DOCUMENT_REQUIRED", "Only documents of the trusted manifest are run here."
    # The limits; each carries limit and, where it was counted to the end, requested
    TOO_MANY_CHARACTERS = "TOO_MANY_CHARACTERS", "The document's text is too long: limit, requested."
    TOO_MANY_TOKENS = "TOO_MANY_TOKENS", "The document has too many lexical tokens or comments: limit."
    TOO_DEEP = "TOO_DEEP", "Fields are nested too deeply: limit, requested."
    TOO_MANY_ALIASES = "TOO_MANY_ALIASES", "Too many aliases, fragments expanded: limit, requested."
    TOO_MANY_NODES = "TOO_MANY_NODES", "Too many fields, fragments expanded: limit, requested."
    TOO_MANY_DUPLICATES = "TOO_MANY_DUPLICATES", "One field is selected too often in one place: limit, requested."
    TOO_COSTLY = "TOO_COSTLY", "The static cost, from page sizes, is too high: limit, requested."
    TIMEOUT = "TIMEOUT", "The operation did not finish in time: deadlineSeconds. A mutation may still take effect."
    # The domain's refusals, where they reach a field instead of a payload's userErrors
    INVALID = "INVALID", "The input breaks a rule."
    NOT_FOUND = "NOT_FOUND", "There is no such thing, or the caller may not know of it."
    CONFLICT = "CONFLICT", "Something else has that name, address or place."
    IN_USE = "IN_USE", "It cannot go while others need it."
    BUSY = "BUSY", "A job is working on it."
    INVALID_STATE = "INVALID_STATE", "Not in its present state."
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED", "The tenant's quota does not allow it."
    NO_VALID_HOST = "NO_VALID_HOST", "No host can take it."
    NO_ADDRESS_LEFT = "NO_ADDRESS_LEFT", "The subnet has no free address."
    UNSUPPORTED = "UNSUPPORTED", "The hypervisor lacks it."
    IMAGE_REFUSED = "IMAGE_REFUSED", "The file is no image that is safe to use."
    STALE_VERSION = "STALE_VERSION", "Somebody changed it meanwhile."
    IDEMPOTENCY_KEY_MISMATCH = "IDEMPOTENCY_KEY_MISMATCH", "The key was used with other arguments."
    HYPERVISOR_ERROR = "HYPERVISOR_ERROR", "The hypervisor failed."
    CANCELLED = "CANCELLED", "It was cancelled."
    # The server
    UNAVAILABLE = "UNAVAILABLE", "Something the server depends on is away, or it is stopping: try again."
    INTERNAL = "INTERNAL", "A bug. The log has its chain under the request id."


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
        ErrorCode.TOO_MANY_CHARACTERS,
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
    return ErrorCode.__members__.get(code) if isinstance(code, str) else None


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
    shown: dict[str, Any] = {"message": error.message[:_LONGEST_MESSAGE_CHARS]}
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
