"""Refusals as GraphQL: the ``UserError`` interface and one type per kind that carries data.

A client that knows only ``{ code message path }`` sees every refusal; one that knows the kind sees its data.
"""

from typing import Any

import strawberry

from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from resolvers.kernel import scalars

Code = scalars.enum(errors.UserErrorCode)


@strawberry.interface(description="Why something was refused. Nothing was changed.")
class UserError:
    """The root of all refusals as told to clients."""

    refusal: strawberry.Private[Refusal]

    @strawberry.field(graphql_type=Code, description="The kind of refusal.")
    def code(self) -> Any:
        """The kind."""
        return self.refusal.code

    @strawberry.field(description="One sentence for people.")
    def message(self) -> str:
        """The sentence."""
        return self.refusal.message

    @strawberry.field(description="Where in the input, outermost name first; null when it is about no one place.")
    def path(self) -> list[str] | None:
        """The place."""
        return list(self.refusal.path) or None


PROBLEMS: dict[errors.UserErrorCode, type[UserError]] = {}


def problem(code: errors.UserErrorCode) -> Any:
    """Register the GraphQL type of a kind of refusal."""

    def keep(cls: type[UserError]) -> Any:
        made = strawberry.type(cls, description=scalars.flat(cls.__doc__ or ""))
        PROBLEMS[code] = made
        return made

    return keep


def datum(name: str, shown_as: Any, description: str) -> Any:
    """A field that reads one entry of the refusal's data; null where it is absent."""

    def resolve(root: Any) -> Any:
        return root.refusal.data.get(name)

    return strawberry.field(resolver=resolve, graphql_type=shown_as, description=description)


@strawberry.type(name="Problem", description="A refusal that carries no data beyond code, message and path.")
class Problem(UserError):
    """Any kind without a type of its own."""


@problem(errors.UserErrorCode.QUOTA_EXCEEDED)
class QuotaExceeded(UserError):
    """The tenant's quota does not allow that much."""

    resource = datum("resource", str, "What is limited, such as `VCPUS`.")
    limit = datum("limit", int, "How much the tenant may have.")
    used = datum("used", int, "How much it has.")
    requested = datum("requested", int, "How much more was asked for.")


@problem(errors.UserErrorCode.INVALID_STATE)
class InvalidState(UserError):
    """The object is not in a state that allows it."""

    current = datum("current", str, "The state it is in.")
    allowed = datum("allowed", list[str], "The states that would allow it.")


@problem(errors.UserErrorCode.BUSY)
class Busy(UserError):
    """A job is working on the object."""

    job_id = datum("job_id", strawberry.ID | None, "The job at work.")


@problem(errors.UserErrorCode.IN_USE)
class InUse(UserError):
    """Others need the object."""

    blockers = datum("blockers", list[strawberry.ID], "The ids of what needs it.")


@problem(errors.UserErrorCode.FORBIDDEN)
class Forbidden(UserError):
    """Your role does not allow it."""

    required = datum("required", str | None, "The role that would.")


@problem(errors.UserErrorCode.UNSUPPORTED)
class Unsupported(UserError):
    """The hypervisor lacks the feature."""

    capability = datum("capability", str | None, "The missing capability.")
    hypervisor = datum("hypervisor", str | None, "Where it is missing.")


@problem(errors.UserErrorCode.STALE_VERSION)
class StaleVersion(UserError):
    """The object was changed since you read it."""

    expected = datum("expected", int, "The version you gave.")
    actual = datum("actual", int, "The version it has.")


@problem(errors.UserErrorCode.IMAGE_REFUSED)
class ImageRefused(UserError):
    """The file is not an image that is safe to use."""

    reason = datum("reason", str, "A stable word for why.")


@problem(errors.UserErrorCode.HYPERVISOR_ERROR)
class HypervisorError(UserError):
    """A host could not do it."""

    reason = datum("reason", str | None, "What the hypervisor said.")


@problem(errors.UserErrorCode.LOCKED_OUT)
class LockedOut(UserError):
    """Too many wrong passwords."""

    until = datum("until", str | None, "When it is allowed again, by RFC 3339.")


@problem(errors.UserErrorCode.RATE_LIMITED)
class RateLimited(UserError):
    """Too many requests."""

    retry_after_s = datum("retry_after_s", int | None, "Seconds until it is allowed again.")


def show(refusal: Refusal) -> UserError:
    """The GraphQL object of a refusal."""
    return PROBLEMS.get(refusal.code, Problem)(refusal=refusal)
