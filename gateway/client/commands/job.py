"""``stratograph job``: list, show, watch (through the subscription, to the end) and cancel."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.client.commands import options, output, progress, talk
from gateway.client.commands.nouns import JOB
from gateway.client.problem import JobFailed, Problem

app = typer.Typer(help="Jobs: the work that changes lead to.", no_args_is_help=True)

_Id = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]


@app.command("list")
def list_(
    *,
    live: Annotated[
        bool | None, typer.Option("--live/--ended", help="Only those under way, or only those not.")
    ] = None,
    status: Annotated[list[str] | None, typer.Option(help="In this state; may be repeated.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of this kind, such as server.create.")] = None,
    target: Annotated[str | None, typer.Option(help="Working on what has this id.")] = None,
    limit: options.Limit = 100,
    as_json: options.Json = False,
) -> None:
    """List jobs, the newest first."""
    with talk.cloud(machine=as_json) as cloud:
        states = [each.upper() for each in status] if status else None
        cloud.listing(JOB, {"live": live, "status": states, "kind": kind, "targetId": target}, limit)


@app.command()
def show(job: _Id, *, as_json: options.Json = False) -> None:
    """Show a job with its steps."""
    with talk.cloud(machine=as_json) as cloud:
        cloud.show(JOB, job)


@app.command()
def watch(
    jobs: Annotated[list[str], typer.Argument(help="The jobs' ids.", metavar="JOB...")],
    *,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Follow jobs until they have ended; with --json each change is a line. Exit code 1 when one did not succeed."""
    failed: list[JobFailed] = []
    with talk.cloud(machine=as_json) as cloud:
        for each in jobs:
            try:
                if as_json:
                    cloud.client.follow(each, lambda job: output.as_json(job, compact=True), deadline_s=timeout)
                else:
                    progress.follow(cloud.client, each, timeout)
            except JobFailed as problem:
                failed.append(problem)
        if failed:
            failed[0].others = list(failed[1:])
            raise failed[0]


@app.command()
def cancel(
    job: _Id, *, wait: options.Wait = False, timeout: options.Timeout = None, as_json: options.Json = False
) -> None:
    """Ask a job to stop and undo what it did. With --wait until it has: exit code 0 means that it was cancelled."""
    with talk.cloud(machine=as_json) as cloud:
        told = cloud.do("jobCancel", {"id": job})["job"]
        if wait:
            told = _cancelled(cloud, job, timeout)
        if as_json:
            output.as_json(told)
        elif not wait:
            cloud.hint([told])


def _cancelled(cloud: talk.Talk, job: str, timeout_s: float | None) -> dict[str, object]:
    try:
        ended = progress.follow(cloud.client, job, timeout_s, quiet=cloud.machine)
    except JobFailed as problem:
        if problem.job.get("status") != "CANCELLED":
            raise
        return problem.job
    raise Problem("INVALID_STATE", f"The job had ended as {ended['status']} before it could be cancelled.")
