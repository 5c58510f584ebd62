"""Refusals: one class per kind, raised with data instead of prose.

A refusal is a value of the API (a ``UserError``), never a fault: it says what was wrong, where (``path``, in the names
of the public input) and what would help. Whatever is not a :class:`Refusal` is a bug and gets masked at the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, ClassVar


class UserErrorCode(StrEnum):
    """Why something was refused. Clients must tolerate codes that they do not know."""

    INVALID = "INVALID"
    """The input breaks a rule that does not depend on anything else."""
    NOT_FOUND = "NOT_FOUND"
    """There is no such thing, or you may not know of it."""
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """Nobody is signed in, or what was shown proves nothing."""
    FORBIDDEN = "FORBIDDEN"
    """Your role does not allow it."""
    CONFLICT = "CONFLICT"
    """Something else has that name, address or place."""
    IN_USE = "IN_USE"
    """Others need the object."""
    BUSY = "BUSY"
    """A job is working on the object."""
    INVALID_STATE = "INVALID_STATE"
    """The object is not in a state that allows it."""
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    """The tenant's quota does not allow that much."""
    NO_VALID_HOST = "NO_VALID_HOST"
    """No host can take it; the decision says why."""
    NO_ADDRESS_LEFT = "NO_ADDRESS_LEFT"
    """The subnet has no free address."""
    UNSUPPORTED = "UNSUPPORTED"
    """The hypervisor lacks the feature."""
    IMAGE_REFUSED = "IMAGE_REFUSED"
    """The file is not an image that is safe to use."""
    STALE_VERSION = "STALE_VERSION"
    """The object was changed since you read it."""
    IDEMPOTENCY_KEY_MISMATCH = "IDEMPOTENCY_KEY_MISMATCH"
    """The key was used before with other arguments."""
    LOCKED_OUT = "LOCKED_OUT"
    """Too many wrong passwords; wait or ask an operator."""
    RATE_LIMITED = "RATE_LIMITED"
    """Too many requests; wait."""
    HYPERVISOR_ERROR = "HYPERVISOR_ERROR"
    """A host could not do it."""
    CANCELLED = "CANCELLED"
    """Somebody asked for it to stop."""
    INTERNAL = "INTERNAL"
    """A fault of the cloud, told without details; give its request or job id to the operator."""


Path = tuple[str, ...]


class Refusal(Exception):  # noqa: N818 - a refusal is the domain's word; it is an answer, not an error of the program
    """The root of all expected answers other than success. ``data`` holds what the kind adds, as plain JSON values."""

    code: ClassVar[UserErrorCode]

    def __init__(self, message: str, *, path: Sequence[str] = (), **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.path: Path = tuple(path)
        self.data = data

    def at(self, *path: str) -> Refusal:
        """The same refusal, said of this place of the input."""
        self.path = (*path, *self.path)
        return self


class Refusals(Exception):  # noqa: N818 - as above
    """Several refusals of one input, told together."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("; ".join(each.message for each in refusals))
        self.refusals = tuple(refusals)
        self.code = refusals[0].code
        self.data: dict[str, Any] = {"path": list(refusals[0].path), **refusals[0].data}


class Invalid(Refusal):
    """The input breaks a rule that does not depend on anything else."""

    code = UserErrorCode.INVALID


class NotFound(Refusal):
    """There is no such thing, or the caller may not know of it."""

    code = UserErrorCode.NOT_FOUND


class Unauthenticated(Refusal):
    """Nobody is signed in, or what was shown proves nothing."""

    code = UserErrorCode.UNAUTHENTICATED


class Forbidden(Refusal):
    """The caller may see it but not do this. ``required`` names the role that could."""

    code = UserErrorCode.FORBIDDEN


class Conflict(Refusal):
    """Something else has that name, address or place already."""

    code = UserErrorCode.CONFLICT


class InUse(Refusal):
    """It cannot go while others need it. ``blockers`` are their TypeIDs."""

    code = UserErrorCode.IN_USE


class Busy(Refusal):
    """A job is working on it. ``job_id`` is its TypeID."""

    code = UserErrorCode.BUSY


class InvalidState(Refusal):
    """Not in this state. ``current`` and ``allowed`` are states."""

    code = UserErrorCode.INVALID_STATE


class QuotaExceeded(Refusal):
    """``resource``, ``limit``, ``used``, ``requested``."""

    code = UserErrorCode.QUOTA_EXCEEDED


class NoValidHost(Refusal):
    """No host can take it. ``decision`` is the whole explanation (gateway.compute.placement)."""

    code = UserErrorCode.NO_VALID_HOST


class NoAddressLeft(Refusal):
    """The subnet's pool is exhausted. ``subnet_id`` is its TypeID."""

    code = UserErrorCode.NO_ADDRESS_LEFT


class Unsupported(Refusal):
    """The hypervisor lacks it. ``capability`` names what, ``hypervisor`` where."""

    code = UserErrorCode.UNSUPPORTED


class ImageRefused(Refusal):
    """The file is no image that is safe to use. ``reason`` is a stable word."""

    code = UserErrorCode.IMAGE_REFUSED


class StaleVersion(Refusal):
    """Somebody changed it meanwhile. ``expected``, ``actual``."""

    code = UserErrorCode.STALE_VERSION


class IdempotencyKeyMismatch(Refusal):
    """The key was used before with other arguments."""

    code = UserErrorCode.IDEMPOTENCY_KEY_MISMATCH


class LockedOut(Refusal):
    """Too many wrong passwords. ``until`` is an RFC 3339 moment."""

    code = UserErrorCode.LOCKED_OUT


class RateLimited(Refusal):
    """Too often. ``retry_after_s`` says when to come back."""

    code = UserErrorCode.RATE_LIMITED


class HypervisorError(Refusal):
    """A host could not do it. ``reason`` is the driver's sentence."""

    code = UserErrorCode.HYPERVISOR_ERROR


class Cancelled(Refusal):
    """Somebody asked for it to stop."""

    code = UserErrorCode.CANCELLED


class Internal(Refusal):
    """A fault of ours, told without its details. The log has them under the job's or request's id."""

    code = UserErrorCode.INTERNAL


class Unavailable(Exception):  # noqa: N818 - as above
    """Something this process depends on is away: the database does not answer, or its disk is full. Nothing was
    changed; trying again later is right. It is no refusal: the request may be perfectly good.
    """

    code = "UNAVAILABLE"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.data: dict[str, Any] = {}


KINDS: dict[UserErrorCode, type[Refusal]] = {
    kind.code: kind
    for kind in (
        Invalid, NotFound, Unauthenticated, Forbidden, Conflict, InUse, Busy, InvalidState, QuotaExceeded, NoValidHost,
        NoAddressLeft, Unsupported, ImageRefused, StaleVersion, IdempotencyKeyMismatch, LockedOut, RateLimited,
        HypervisorError, Cancelled, Internal,
    )
}  # fmt: skip


def to_json(refusal: Refusal) -> dict[str, Any]:
    """A refusal as kept in a job's row."""
    return {"code": refusal.code.value, "message": refusal.message, "path": list(refusal.path), "data": refusal.data}


def from_json(kept: dict[str, Any]) -> Refusal:
    """The refusal that :func:`to_json` kept."""
    kind = KINDS[UserErrorCode(kept["code"])]
    return kind(kept["message"], path=kept["path"], **kept["data"])
