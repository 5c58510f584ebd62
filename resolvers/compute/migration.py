"""Moves of servers in the graph: the record, the plan, and the three commands."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import strawberry
from strawberry.types import Info

from gateway.compute import host, migration, server
from gateway.compute.carryover import NoteKind
from gateway.jobs import job
from gateway.kernel import ids
from gateway.kernel.access import Need
from gateway.kernel.errors import Refusal, Refusals
from gateway.volume import volume
from resolvers.compute.placement import PlacementDecision
from resolvers.kernel import inputs, problems, scalars
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.context import Context, on_thread
from resolvers.kernel.graph import Node, Resolved, column, computed, edge, node
from resolvers.kernel.roots import mutation, node_query, query

NOTE_KIND = scalars.enum(NoteKind)


@strawberry.type(description="Something to know before a server is moved: what is lost, and what changes.")
class MigrationNote:
    """A note."""

    kind: NOTE_KIND = strawberry.field(description="What it is about.")
    message: str = strawberry.field(description="The same for people.")


@strawberry.type(description="A disk that was carried over.")
class MigratedDisk:
    """A disk as kept in JSON."""

    volume_id: strawberry.ID | None = strawberry.field(description="The volume; null for the server's own root disk.")
    device: str = strawberry.field(description="The guest's name for it.")
    size_bytes: scalars.BigInt = strawberry.field(description="Its size as the guest sees it.")
    copied_bytes: scalars.BigInt = strawberry.field(description="How many bytes left the old host for it.")
    sha256_before: str = strawberry.field(description="SHA-256 of what the guest sees, as read from the old host.")
    sha256_after: str = strawberry.field(description="The same, as read back from the new host.")


def _notes(row: Any) -> list[MigrationNote]:
    return [MigrationNote(kind=NoteKind(each["kind"]), message=each["message"]) for each in row.notes]


def _disks(row: Any) -> list[MigratedDisk]:
    return [
        MigratedDisk(
            volume_id=None if each["root"] else strawberry.ID(ids.encode(volume.NOUN.prefix, UUID(each["uid"]))),
            device=each["device"],
            size_bytes=each["size_bytes"],
            copied_bytes=each["copied_bytes"],
            sha256_before=each["sha256_before"],
            sha256_after=each["sha256_after"],
        )
        for each in row.disks
    ]


@node(migration.NOUN)
class Migration(Node):
    """One move of a server to another host."""

    server = edge(server.NOUN, "server_id", "What is moved.")
    status = column("Where it stands.")
    status_reason = column("Why it failed; null when it did not.")
    from_hypervisor = column("What the server ran on before.")
    to_hypervisor = column("What it is moved to.")
    conversion = column("What is done to the guest on the way.")
    copy_while = column("What the server does while its disks are copied.")
    verified = column("What was heard of the guest on the new host; `seen` says how.")
    was_running = column("Whether the server ran when the move began.")
    disks = computed(list[MigratedDisk], _disks, "The disks that were carried over so far.", "disks")
    notes = computed(list[MigrationNote], _notes, "What was to be known before.", "notes")
    seen = column("What was heard of the guest on the new host, in words; null before, and when it was off.")
    host = edge(host.NOUN, "host_id", "The host that holds room for it beside the server's own; for operators.")
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")
    finished_at = column("When it was confirmed, reverted or had failed.")


node_query(migration.NOUN, "A move of a server by its id.")
connection_query(
    "migrations", Listing(migration.NOUN, migration.find, migration.Filter, migration.ORDERS),
    "Moves of servers, oldest first.",
)  # fmt: skip


@strawberry.type(description="What serverMigrate would do now. Nothing was changed.")
class MigrationPlan:
    """A plan."""

    possible: bool = strawberry.field(description="Whether it would be accepted and a host could take the server.")
    decision: PlacementDecision | None = strawberry.field(description="Where the server would go, and why.")
    notes: list[MigrationNote] = strawberry.field(description="What is lost, and what changes.")
    disk_gib: int = strawberry.field(description="How much disk is to be carried over, in GiB.")
    user_errors: list[problems.UserError] = strawberry.field(description="Why serverMigrate would be refused.")


@query(
    Need.MEMBER,
    "What serverMigrate would do with this input: the same checks, the same scheduler, and no effect.",
    name="serverMigratePlan", shown_as=MigrationPlan, reads=Resolved(),
)  # fmt: skip
async def server_migrate_plan(
    info: Info,
    input: Annotated[  # noqa: A002 - the argument's public name
        inputs.input_type(migration.ServerMigrate, "ServerMigrateInput"),
        strawberry.argument(description="As for serverMigrate."),
    ],
) -> Any:
    """The plan."""
    context: Context = info.context
    try:
        command: Any = inputs.command_of(migration.ServerMigrate, input)
        plan = await on_thread(
            lambda: context.services.db.rehearse(lambda session: migration.plan(session, context.subject, command))
        )
    except (Refusal, Refusals) as refused:
        several = refused.refusals if isinstance(refused, Refusals) else (refused,)
        shown = [problems.show(each) for each in several]
        return MigrationPlan(possible=False, decision=None, notes=[], disk_gib=0, user_errors=shown)
    return MigrationPlan(
        possible=plan.decision.chosen is not None,
        decision=PlacementDecision(told=asdict(plan.decision)),
        notes=[MigrationNote(kind=each.kind, message=each.message) for each in plan.notes],
        disk_gib=plan.disk_gib,
        user_errors=[],
    )


_PAYLOAD = {
    "migration": (migration.NOUN, "The move."),
    "server": (server.NOUN, "The server as it is now."),
    "job": (job.NOUN, "The job that does it."),
}

mutation(
    "serverMigrate", migration.migrate, migration.ServerMigrate, Need.MEMBER,
    "Move a server to another host, of another hypervisor too. It is off meanwhile; the old machine is kept.",
    payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "serverMigrateConfirm", migration.confirm, migration.ServerMigrateConfirm, Need.MEMBER,
    "Have the old machine of a server that was moved taken away.", payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "serverMigrateRevert", migration.revert, migration.ServerMigrateRevert, Need.MEMBER,
    "Put a server that was moved back on its old machine; what it wrote since is lost.", payload=_PAYLOAD,
)  # fmt: skip
