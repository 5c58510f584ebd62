"""One command's talk with the cloud: sign in with what is stored, ask, follow jobs, show, and end with the right code.

Every command runs inside :func:`cloud`, which turns whatever the cloud refuses into its typed error on the standard
error and an exit code. Jobs are followed by the subscription ``jobChanged``; nothing is asked for twice to see whether
it has changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gateway.client.commands import documents, finding, nouns, output, progress, stored
from gateway.client.commands.nouns import Noun
from gateway.client.problem import Problem, Unreachable

if TYPE_CHECKING:
    from gateway.client.client import Client


@dataclass(frozen=True, slots=True)
class Talk:
    """``machine``: print JSON; ``tenant``: the id of the tenant that was named, or None."""

    client: Client
    machine: bool
    tenant: str | None = None

    def find(self, noun: Noun, text: str) -> str:
        """The id of what is named, in the chosen tenant if there is one."""
        return finding.find(self.client, noun, text, tenant=self.tenant)

    def find_maybe(self, noun: Noun, text: str | None) -> str | None:
        """As :meth:`find`, for what need not be given."""
        return None if text is None else self.find(noun, text)

    def listing(self, noun: Noun, wanted: Mapping[str, Any], limit: int) -> None:
        """Print the things that a filter asks for."""
        asked = {name: value for name, value in wanted.items() if value is not None}
        if self.tenant is not None:
            asked["tenantId"] = self.tenant
        rows = list(finding.pages(self.client, noun, asked, limit))
        if self.machine:
            output.as_json(rows)
            return
        output.table(list(noun.columns), [[show(row) for show in noun.columns.values()] for row in rows])
        if limit and len(rows) == limit:
            output.say(f"The first {limit}; --limit 0 lists all.")

    def show(self, noun: Noun, public_id: str) -> None:
        """Print one thing, as it is now."""
        found = finding.get(self.client, noun, public_id)
        if self.machine:
            output.as_json(found)
        else:
            output.sheet({name: _readable(value) for name, value in found.items()})

    def do(self, mutation: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Send a mutation; inputs that are None stay out."""
        return self.client.do(mutation, documents.SELECTIONS[mutation], **given_of(given))

    def each(
        self,
        noun: Noun,
        mutation: str,
        targets: Sequence[str],
        given: Mapping[str, Any] | None = None,
        *,
        key: str = "id",
        wait: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        """Do the same to several things; every name is found before anything is done."""
        found = [self.find(noun, each) for each in targets]
        jobs = [self.do(mutation, {key: each, **(given or {})})["job"] for each in found]
        if wait:
            jobs = self.wait(jobs, timeout_s)
        if self.machine:
            output.as_json({"ids": found, "jobs": jobs})
        elif not wait:
            self.hint(jobs)

    def made(
        self,
        noun: Noun,
        rows: Sequence[Mapping[str, Any]],
        jobs: Sequence[Mapping[str, Any] | None],
        *,
        wait: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        """Print what was made, as it is when its jobs have ended, or with how they can be followed."""
        if wait:
            jobs = self.wait(jobs, timeout_s)
            rows = [finding.get(self.client, noun, each["id"]) for each in rows]
        if self.machine:
            output.as_json({noun.plural: list(rows), "jobs": [each for each in jobs if each is not None]})
            return
        output.table(list(noun.columns), [[show(row) for show in noun.columns.values()] for row in rows])
        self.hint(jobs)

    def hint(self, jobs: Sequence[Mapping[str, Any] | None]) -> None:
        """Say which jobs are under way."""
        for each in jobs:
            if each is not None and not each.get("finishedAt"):
                output.say(f"Under way: stratograph job watch {each['id']}")

    def wait(self, jobs: Sequence[Mapping[str, Any] | None], timeout_s: float | None) -> list[dict[str, Any]]:
        """Follow jobs until they have ended, ``timeout_s`` in all. Raises JobFailed for one that did not succeed."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        ended = []
        for each in jobs:
            if each is not None:
                left = None if until is None else max(0.0, until - time.monotonic())
                ended.append(progress.follow(self.client, str(each["id"]), left, quiet=self.machine))
        return ended


def given_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the inputs that were given."""
    return {name: value for name, value in inputs.items() if value is not None}


@contextmanager
def cloud(*, machine: bool, tenant: str | None = None) -> Iterator[Talk]:
    """A talk with the cloud that one is signed in to. Ends the command with its exit code when something is refused."""
    with refusals(machine=machine):
        known = _known()
        if known.token is None:
            raise Problem("UNAUTHENTICATED", "Nobody is signed in.")
        with opened(known) as client:
            yield Talk(client, machine, None if tenant is None else finding.find(client, nouns.TENANT, tenant))


def opened(known: stored.Stored) -> Client:
    """A client for what is stored. Raises Problem for an address or an authority that is none."""
    from gateway.client.client import Client

    try:
        return Client(known.url, known.token, ca_file=Path(known.ca) if known.ca else None)
    except (OSError, ValueError) as error:
        raise Unreachable(f"{known.url} cannot be reached with these settings: {error}") from error


@contextmanager
def refusals(*, machine: bool) -> Iterator[None]:
    """Turn problems into what is printed of them and the exit code."""
    try:
        yield
    except Problem as problem:
        output.tell(problem, machine=machine)
        raise typer.Exit(output.exit_code(problem)) from None
    except KeyboardInterrupt:
        output.say("Interrupted; what was begun goes on in the cloud.")
        raise typer.Exit(130) from None


def _known() -> stored.Stored:
    try:
        return stored.load()
    except stored.Unusable as unusable:
        raise Problem("UNAUTHENTICATED", str(unusable)) from None


def _readable(value: Any) -> Any:
    """A field for people: a linked thing by its name, a list of them by theirs."""
    if isinstance(value, list):
        return [_readable(each) for each in value]
    if isinstance(value, dict):
        name = value.get("name") or value.get("kind")
        rest = [f"{key} {_readable(each)}" for key, each in value.items() if key not in {"id", "name", "kind"} and each]
        return ", ".join(part for part in (name, *rest, value.get("id") and f"({value['id']})") if part)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value
