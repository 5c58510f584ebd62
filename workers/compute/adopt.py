"""Machines of others becoming servers: the saga ``server.adopt``. read -> mark -> manage.

Reading changes nothing on the host. The mark is all that is ever written there, and taking it off is the undo.
"""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from drivers.api import Adoption, AdoptionSpec, Capability, Deadline, DiskSpec, Driver, ForeignMachine, Transient
from drivers.api import Unsupported as DriverUnsupported
from gateway.compute import adoption
from gateway.compute import server as servers
from gateway.compute.adoption import Found
from gateway.compute.machine_model import Firmware
from gateway.compute.server import Server
from gateway.identity.tenant import Tenant
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from gateway.network import port as ports
from workers.compute.machine import observed
from workers.reach import call
from workers.saga import Change, Run, Step, saga

MARK_S = 120.0


def _server(session: Session, run_or_job: Run | Job) -> Server:
    server = session.get(Server, run_or_job.arguments["server_id"])
    if server is None:
        raise errors.NotFound("The server is gone.")
    return server


def adopting(driver: Driver) -> Adoption:
    """The driver's verbs for machines of others. Raises the driver's Unsupported."""
    if not isinstance(driver, Adoption):
        raise DriverUnsupported(Capability.ADOPTION, "machines on this host cannot be adopted")
    return driver


# ------------------------------------------------------------------------------------------------ read


def _read(run: Run) -> Change:
    ref, host_id = run.arguments["ref"], run.arguments["on_host"]
    machine: ForeignMachine | None = call(
        run, host_id, lambda driver, deadline: adopting(driver).inspect_foreign(ref, deadline)
    )
    if machine is None:
        raise errors.NotFound("The host has no such machine, or it is one of the cloud's.", path=("machineRef",))
    if machine.obstacles:
        reason = machine.obstacles[0]
        raise errors.HypervisorError(f"The machine cannot be adopted: {reason}.", reason=reason)
    if not 1 <= len(machine.disks) <= len(adoption.DEVICES):
        reason = f"it has {len(machine.disks)} disks"
        raise errors.HypervisorError(f"The machine cannot be adopted: {reason}.", reason=reason)
    found = _found(machine)
    run.say(
        f"{found.name}: {found.vcpus} vCPUs, {found.ram_mib} MiB, {len(found.disks)} disks, {len(found.nics)} NICs."
    )

    def change(session: Session, job: Job) -> None:
        server = _server(session, job)
        kept = adoption.read(
            session, server, host_id, found, flavored=job.arguments["flavored"], named=job.arguments["named"]
        )
        job.memory = {**job.memory, **kept}

    return change


def _found(machine: ForeignMachine) -> Found:
    return Found(
        ref=machine.ref,
        name=machine.name,
        vcpus=machine.vcpus,
        ram_mib=machine.ram_mib,
        firmware=Firmware(machine.firmware.value),
        guest=machine.guest,
        disks=tuple((disk.key, disk.size_bytes) for disk in machine.disks),
        nics=tuple((nic.mac, nic.network) for nic in machine.nics),
    )


def _unread(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        server = session.get(Server, job.arguments["server_id"])
        if server is not None and "disks" in job.memory:
            adoption.unread(session, server, job.memory)
        job.memory = {key: value for key, value in job.memory.items() if key not in ("disks", "amount", "before")}

    return change


# ------------------------------------------------------------------------------------------------ mark


def _mark(run: Run) -> None:
    with run.read() as session:
        server = _server(session, run)
        tenant = session.get_one(Tenant, server.tenant_id)
        disks = {key: DiskSpec(uid, device) for key, (uid, device) in adoption.disk_ids(run.memory).items()}
        marks = {"server": servers.NOUN.public(server), "tenant": f"{tenant.uid}"}
        wanted = AdoptionSpec(run.arguments["ref"], server.uid, server.name, disks, marks)
    call(
        run, run.arguments["on_host"], lambda driver, deadline: adopting(driver).adopt(wanted, deadline), seconds=MARK_S
    )
    run.say("The machine carries our mark; nothing else about it was changed.")


def _unmark(run: Run) -> None:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
    if server is not None:
        uid = server.uid
        call(run, run.arguments["on_host"], lambda driver, deadline: disown(driver, uid, deadline), seconds=MARK_S)


def disown(driver: Driver, uid: Any, deadline: Deadline) -> None:
    """Hand an adopted machine back as it is. A host that lost that skill since is asked again later."""
    if not isinstance(driver, Adoption):
        raise Transient("this host cannot hand machines back any more")
    driver.disown(uid, deadline)


# ------------------------------------------------------------------------------------------------ manage


def _manage(run: Run) -> Change:
    with run.read() as session:
        uid = _server(session, run).uid
    machine = call(run, run.arguments["on_host"], lambda driver, deadline: driver.machines.inspect(uid, deadline))
    if machine is None:
        raise Transient("the adopted machine cannot be seen")

    def change(session: Session, job: Job) -> None:
        server = _server(session, job)
        adoption.taken_over(session, server)
        servers.observe(session, server, observed(machine))

    run.say(f"The server is managed; the hypervisor says that it is {machine.power.value}.")
    return change


def _failed(session: Session, job: Job, why: Refusal) -> None:
    server = session.get(Server, job.arguments["server_id"])
    if server is None:
        return
    for port in ports.of_server(session, server.id):
        ports.unbind(session, port)
        ports.close(session, port)
    server.own_ports = []
    servers.fail(session, server, why.message)


saga(
    "server.adopt",
    Step("read", _read, _unread),
    Step("mark", _mark, _unmark),
    Step("manage", _manage, kept="it only looks"),
    failed=_failed,
)
