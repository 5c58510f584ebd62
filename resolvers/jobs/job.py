"""Jobs in the graph: what is being done, step by step, and how it ended."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from gateway.identity import tenant, user
from gateway.jobs import job
from gateway.jobs.job import StepStatus
from gateway.kernel import errors, ids, noun
from gateway.kernel.access import Need
from resolvers.jobs.event import changes
from resolvers.kernel import problems, scalars
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Named, Node, column, computed, edge, node, spelt, wrap
from resolvers.kernel.roots import mutation, node_query, subscription


@strawberry.type(description="One step of a job.")
class JobStep:
    """A step as told to people."""

    told: strawberry.Private[job.Step]

    @strawberry.field(description="Its name, such as `place`.")
    def name(self) -> str:
        """The name."""
        return self.told.name

    @strawberry.field(graphql_type=scalars.enum(StepStatus), description="Where it stands.")
    def status(self) -> Any:
        """The status."""
        return self.told.status

    @strawberry.field(description="When it was first begun, by RFC 3339.")
    def started_at(self) -> str | None:
        """The moment."""
        return self.told.started_at

    @strawberry.field(description="When it ended, by RFC 3339.")
    def finished_at(self) -> str | None:
        """The moment."""
        return self.told.finished_at

    @strawberry.field(description="How often it was begun.")
    def attempt(self) -> int:
        """The count."""
        return self.told.attempt

    @strawberry.field(description="What it did or why it failed, for people.")
    def message(self) -> str | None:
        """The message."""
        return self.told.message


def _error(row: job.Job) -> Any:
    return problems.show(errors.from_json(row.error)) if row.error else None


@node(job.NOUN)
class Job(Node):
    """Work that goes on after a mutation has answered. It ends done, or undone with a reason."""

    kind = column("What is done, such as `server.create`.")
    status = computed(job.Status, lambda row: row.status, "Where it stands.", "status")
    progress = column("The share of steps that are done, 0 to 1.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose job it is; null for the operators' own.")
    actor = edge(user.NOUN, "actor_id", "Who asked for it; null for the cloud itself.")
    steps = computed(
        list[JobStep], lambda row: [JobStep(told=each) for each in row.told], "Its steps in order.", "steps"
    )
    error = computed(problems.UserError | None, _error, "Why it failed, was cancelled or is stuck.", "error")
    cancellable = computed(
        bool, lambda row: row.cancellable, "Whether jobCancel would be accepted now.",
        "status", "cancel_requested", "kind",
    )  # fmt: skip
    attempt = column("How often a worker took it up.")
    request_id = column("The request that asked for it.")
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")
    started_at = column("When a worker first took it up.")
    finished_at = column("When it ended.")

    @spelt(Named("target"))
    @strawberry.field(description="What it is about; null when that is gone or may not be seen.")
    async def target(self, info: Info) -> Node | None:
        """The object."""
        context: Context = info.context
        if self.row.target is None:
            return None
        prefix, uid = ids.decode(self.row.target)
        found = await context.batch(
            ("target", prefix), lambda session, uids: noun.BY_PREFIX[prefix].find(session, context.subject, uids)
        ).load(uid)
        return wrap(found)  # type: ignore[no-any-return]  # wrap finds the type at run time


@subscription(Need.SIGNED_IN, "A job now and after each change, until it has ended.", name="jobChanged", shown_as=Job)
async def job_changed(
    info: Info,
    id: Annotated[strawberry.ID, strawberry.argument(description="The job.")],  # noqa: A002 - the argument's public name
) -> AsyncIterator[Any]:
    """The job, pushed."""
    async for each in changes(info, job.NOUN, id, lambda row: row.status not in job.LIVE):
        yield each


node_query(job.NOUN, "A job by its id.")
connection_query("jobs", Listing(job.NOUN, job.find, job.Filter, job.ORDERS), "Jobs, oldest first.")
mutation(
    "jobCancel", job.cancel, job.JobCancel, Need.MEMBER, "Ask a job to stop; what it did is taken back.",
    payload={"job": (job.NOUN, "The job as it is now.")},
)  # fmt: skip
mutation(
    "jobRetry", job.retry, job.JobRetry, Need.MEMBER, "Take a stuck job up again.",
    payload={"job": (job.NOUN, "The job as it is now.")},
)  # fmt: skip
