"""What must hold after every move, counted anew from the rows: claims on hosts, quotas, and no thing without a row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from gateway.compute import resizing
from gateway.compute.host import Host
from gateway.compute.migration import Migration
from gateway.compute.resizing import Resize
from gateway.compute.server import Server
from gateway.compute.server_snapshot import ServerSnapshot, ServerSnapshotStatus
from gateway.identity.quota import Quota, Resource
from gateway.jobs.job import LIVE, Job, Status
from gateway.kernel import noun
from gateway.network.network import Network
from gateway.network.port import Port
from gateway.volume.snapshot import Snapshot
from gateway.volume.volume import Volume
from tests.simulation.cloud import Cloud

COUNTED = (
    Resource.SERVERS, Resource.VCPUS, Resource.RAM_MIB, Resource.VOLUMES, Resource.VOLUME_GIB, Resource.SNAPSHOTS,
    Resource.NETWORKS, Resource.PORTS, Resource.SERVER_SNAPSHOTS,
)  # fmt: skip


def check(cloud: Cloud) -> list[str]:
    """All that does not hold, one line each."""
    unfinished = [each for each in cloud.rows(Job) if each.status in (*LIVE, Status.STUCK)]
    rules = (_claims, _quotas, _things, _moments)
    return [line for rule in rules for line in rule(cloud, unfinished)]


def _claims(cloud: Cloud, unfinished: list[Job]) -> list[str]:
    """A host's use is the sum of what servers, their moves and sizes, volumes and snapshots claim of it."""
    used: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])

    def claim(host_id: int | None, *amount: int) -> None:
        if host_id is not None:
            used[host_id] = [a + b for a, b in zip(used[host_id], amount, strict=True)]

    for server in cloud.rows(Server):
        claim(server.host_id, server.vcpus, server.ram_mib, server.disk_gib)
    for volume in cloud.rows(Volume):
        claim(volume.host_id, 0, 0, volume.size_gib)
    for snapshot in cloud.rows(Snapshot):
        claim(snapshot.host_id, 0, 0, snapshot.size_gib)
    for moment in cloud.rows(ServerSnapshot):
        claim(moment.host_id, 0, 0, moment.size_gib)
    for each in _held_beside(cloud, unfinished):
        claim(*each)
    return [line for host in cloud.rows(Host) for line in _host(host, used[host.id])]


def _held_beside(cloud: Cloud, unfinished: list[Job]) -> Iterator[tuple[int | None, int, int, int]]:
    """What is claimed (a host's key and the amounts) beside what servers and disks have there."""
    for move in cloud.rows(Migration):
        yield move.host_id, move.vcpus, move.ram_mib, move.disk_gib
    for resize, server in _resizes(cloud):
        for host_id, amount in resizing.held_of_hosts(resize, server):
            yield host_id, amount.vcpus, amount.ram_mib, amount.disk_gib
    for job in unfinished:
        if job.kind == "volume.extend" and "claimed" in job.memory:
            yield job.memory["claimed"], 0, 0, job.arguments["more"]
        if job.kind == "server.relocate" and "held" in job.memory:
            yield tuple(job.memory["held"])


def _resizes(cloud: Cloud) -> list[tuple[Resize, Server]]:
    """What is under way or waits to be decided, with its server."""
    found = {each.id: each for each in cloud.rows(Resize)}
    return [(found[each.resize_id], each) for each in cloud.rows(Server) if each.resize_id is not None]


def _host(host: Host, claimed: list[int]) -> list[str]:
    """What is wrong with the counts of one host."""
    found = []
    kept = [host.used_vcpus, host.used_ram_mib, host.used_disk_gib]
    if kept != claimed:
        found.append(f"host {host.name} has {kept} in use, its machines and disks claim {claimed}")
    room = int(host.ram_mib * host.ram_ratio)
    if host.status.value != "UNKNOWN" and host.free_ram_mib != room - host.used_ram_mib:
        found.append(f"host {host.name} has {host.free_ram_mib} MiB free of {room}, {host.used_ram_mib} used")
    return found


def _quotas(cloud: Cloud, unfinished: list[Job]) -> list[str]:
    """What a tenant has used of its quota is what it has."""
    held: Counter[tuple[int, Resource]] = Counter()
    for server in cloud.rows(Server):
        if server.counted:
            held[server.tenant_id, Resource.SERVERS] += 1
            held[server.tenant_id, Resource.VCPUS] += server.vcpus
            held[server.tenant_id, Resource.RAM_MIB] += server.ram_mib
    for resize, server in _resizes(cloud):
        for resource, amount in resizing.held_of_quota(resize, server).items():
            held[server.tenant_id, resource] += amount
    for volume in cloud.rows(Volume):
        held[volume.tenant_id, Resource.VOLUMES] += 1
        held[volume.tenant_id, Resource.VOLUME_GIB] += volume.size_gib
    for snapshot in cloud.rows(Snapshot):
        held[snapshot.tenant_id, Resource.SNAPSHOTS] += 1
        held[snapshot.tenant_id, Resource.VOLUME_GIB] += snapshot.size_gib
    for moment in cloud.rows(ServerSnapshot):
        held[moment.tenant_id, Resource.SERVER_SNAPSHOTS] += 1
        held[moment.tenant_id, Resource.VOLUME_GIB] += moment.size_gib
    for job in unfinished:
        if job.kind == "volume.extend":
            held[job.tenant_id or 0, Resource.VOLUME_GIB] += job.arguments["more"]
    held.update((network.tenant_id, Resource.NETWORKS) for network in cloud.rows(Network))
    held.update((port.tenant_id, Resource.PORTS) for port in cloud.rows(Port))
    return [
        f"tenant {quota.tenant_id} has used {quota.used} {quota.resource}, not {held[quota.tenant_id, quota.resource]}"
        for quota in cloud.rows(Quota)
        if quota.resource in COUNTED and quota.used != held[quota.tenant_id, quota.resource]
    ]


def _things(cloud: Cloud, unfinished: list[Job]) -> list[str]:
    """Nothing is on a host that is not recorded there, unless a job about it is unfinished."""
    busy = {each for job in unfinished for each in (job.target, job.resource)}
    hosts = {host.name: host.id for host in cloud.rows(Host)}
    servers = {each.id: each for each in cloud.rows(Server)}
    owners: dict[str, tuple[int | None, str]] = {}

    def own(uid: object, row: Any, host_id: int | None) -> None:
        owners[str(uid)] = (host_id, noun.public(row))

    for server in servers.values():
        own(server.uid, server, server.host_id)
        if server.root_uid is not None:
            own(server.root_uid, server, server.host_id)
    rows: list[Any] = [*cloud.rows(Volume), *cloud.rows(Snapshot), *cloud.rows(Port)]
    for row in rows:
        own(row.uid, row, row.host_id)
        holder = servers.get(getattr(row, "server_id", None) or 0)
        if holder is not None and noun.public(holder) in busy:
            busy.add(noun.public(row))
    found = []
    for centre in cloud.centres:
        there = centre.snapshot_of_world()
        for part in (there.machines, there.volumes, there.snapshots, there.ports):
            for key in part:
                host_id, public = owners.get(key, (None, ""))
                if host_id != hosts[centre.name] and public not in busy:
                    found.append(f"{centre.name} has {part[key]}, recorded as {public or 'nothing'} on host {host_id}")
    return found


def _moments(cloud: Cloud, unfinished: list[Job]) -> list[str]:
    """A server counts its snapshots; unless a job is at work on it, its host has them, and no other, in that tree."""
    found = []
    busy = {job.resource for job in unfinished}
    there = [each for centre in cloud.centres for each in centre.snapshot_of_world().machine_snapshots.values()]
    rows = [each for each in cloud.rows(ServerSnapshot) if each.status is not ServerSnapshotStatus.ERROR]
    uids = {each.id: str(each.uid) for each in rows}
    for server in cloud.rows(Server):
        mine = {str(each.uid): uids.get(each.parent_id or 0) for each in rows if each.server_id == server.id}
        if server.snapshot_count != len(mine):
            found.append(f"{noun.public(server)} counts {server.snapshot_count} snapshots, not {len(mine)}")
        kept = {each.id: each.parent_id for each in there if each.machine_id == str(server.uid)}
        if noun.public(server) not in busy and kept != mine:
            found.append(f"{noun.public(server)} has the snapshots {mine}, and its machine {kept}")
    return found
