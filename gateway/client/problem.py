"""What the API refuses, as exceptions that keep the API's own code and data.

``userErrors`` of a mutation, ``errors`` of a document and a job that failed all become a :class:`Problem`: callers look
at ``code`` (a name of the schema's enums) and at ``data``, never at the text. Only :class:`Unreachable` is the client's
own word, for a cloud that did not answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

USER_ERROR = """code message path __typename
 ... on QuotaExceeded { resource limit used requested }
 ... on InvalidState { current allowed }
 ... on Busy { jobId }
 ... on InUse { blockers }
 ... on StaleVersion { expected actual }
 ... on HypervisorError { reason }
 ... on NoValidHost { decision { considered counts { constraint hosts } smallestChange { message } } }"""
"""A selection of everything that is worth knowing of a user error."""

FOLLOW: Final = f"""subscription($id: ID!) {{ jobChanged(id: $id) {{
 id kind status progress requestId createdAt startedAt finishedAt attempt
 steps {{ name status startedAt finishedAt attempt message }} error {{ {USER_ERROR} }} }} }}"""
"""The document that follows a job to its end."""


def mutation(name: str, selection: str) -> str:
    """The document that sends one mutation and asks for the selection, and for all that is wrong."""
    kind = f"{name[0].upper()}{name[1:]}Input"
    return f"mutation($input: {kind}!) {{ {name}(input: $input) {{ {selection} userErrors {{ {USER_ERROR} }} }} }}"


class Problem(Exception):  # noqa: N818 - the API calls them problems
    """The cloud refused. ``code`` is the API's; ``path`` names the input at fault; ``data`` holds the error's fields.

    ``others`` are the further problems of the same answer, ``request_id`` is what the cloud's log knows the request by.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        path: Sequence[str] | None = None,
        data: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = list(path) if path else []
        self.data = dict(data or {})
        self.request_id = request_id
        self.others: list[Problem] = []

    def __str__(self) -> str:
        where = f" (input {'.'.join(self.path)})" if self.path else ""
        return f"{self.code}: {self.message}{where}"


class Unreachable(Problem):
    """The cloud did not answer, or not in time. Whether it did what it was asked is not known."""

    def __init__(self, message: str, *, code: str = "UNREACHABLE") -> None:
        super().__init__(code, message)


class JobFailed(Problem):
    """A job ended without doing what it was for. ``job`` is the job as it was told last."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        error = job.get("error") or {"code": job["status"], "message": f"The job ended as {job['status']}."}
        super().__init__(str(error["code"]), str(error["message"]), data=error, request_id=job.get("requestId"))
        self.job = dict(job)


def of_errors(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The problem that the ``errors`` of an answer tell. There must be one."""
    found = [_of_error(each) for each in errors]
    found[0].others = found[1:]
    return found[0]


def _of_error(error: Mapping[str, Any]) -> Problem:
    extensions = error.get("extensions") or {}
    return Problem(
        str(extensions.get("code", "INTERNAL")),
        str(error.get("message", "The cloud gave no reason.")),
        data=extensions,
        request_id=extensions.get("requestId"),
    )


def of_user_errors(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The problem that the ``userErrors`` of a payload tell. There must be one."""
    found = [
        Problem(str(each.get("code", "INVALID")), str(each.get("message", "")), path=each.get("path"), data=each)
        for each in errors
    ]
    found[0].others = found[1:]
    return found[0]
