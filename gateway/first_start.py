"""The first start: what a cloud needs before anybody can use it, made once and left alone ever after.

An operator (gateway.identity.bootstrap), a few flavors, and the host that this machine itself can be: KVM where libvirt
answers, the simulated data centre where nothing else is there or where it was asked for.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from sqlmodel import Session, select

from drivers import registry
from gateway.compute import flavor, host
from gateway.compute.flavor import Flavor, FlavorCreate
from gateway.compute.host import Host, HostRegister, Hypervisor
from gateway.identity import bootstrap
from gateway.kernel.access import CLOUD
from gateway.kernel.command import KeyValue
from gateway.kernel.db import Database
from gateway.kernel.errors import Conflict
from gateway.kernel.settings import Settings
from resolvers.cloud import Known

FLAVORS = (
    ("tiny", 1, 128, 1),
    ("small", 1, 1024, 10),
    ("medium", 2, 4096, 40),
    ("large", 4, 8192, 80),
    ("xlarge", 8, 16384, 160),
)
LIBVIRT_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/var/run/libvirt/libvirt-sock"))


@dataclass(frozen=True, slots=True)
class FirstStart:
    """What was found: ``drivers`` maps each driver to what it lacks (None: nothing)."""

    admin: bootstrap.Bootstrap
    drivers: dict[str, str | None]
    accelerator: str | None
    hosts: list[str] = field(default_factory=list)

    @property
    def known(self) -> list[Known]:
        """The drivers as the graph tells them."""
        types = registry.all_types()
        return [
            Known(kind, types[kind].description, tuple(sorted(each.value for each in types[kind].capabilities)), lack)
            for kind, lack in sorted(self.drivers.items())
        ]


def prepare(db: Database, settings: Settings, admin: bootstrap.Bootstrap) -> FirstStart:
    """Make what is missing but for the operator, who is there already."""
    allowed = {name.upper() for name in settings.drivers}
    lacks = {kind: found.missing() for kind, found in registry.all_types().items() if kind in allowed}
    usable_kvm = "KVM" in lacks and lacks["KVM"] is None and any(path.exists() for path in LIBVIRT_SOCKETS)
    accelerator = _accelerator(settings.state_dir) if usable_kvm else None
    wanted: list[HostRegister] = []
    if usable_kvm:
        option = KeyValue(key="accelerator", value="kvm" if accelerator == "KVM" else "tcg")
        wanted.append(
            HostRegister(name=_name("kvm"), hypervisor=Hypervisor.KVM, endpoint="qemu:///system", options=[option])
        )
    asked_for_sim = "drivers" in settings.model_fields_set and "SIM" in allowed
    if "SIM" in lacks and (asked_for_sim or not usable_kvm):
        state = KeyValue(key="state", value=str((settings.state_dir / "sim").resolve()))
        wanted.append(HostRegister(name="sim-1", hypervisor=Hypervisor.SIM, endpoint="sim://sim-1", options=[state]))
    hosts = _once(db, wanted)
    return FirstStart(admin, lacks, accelerator, hosts)


def _accelerator(state_dir: Path) -> str | None:
    from gateway import doctor  # only where guests can run: a start without libvirt does not load it

    return doctor.accelerator(state_dir)


def _once(db: Database, wanted: list[HostRegister]) -> list[str]:
    """:func:`_first`; again when another process was at it in the same moment."""
    for _ in range(3):
        try:
            return db.run(lambda session: _first(session, wanted))
        except Conflict:
            continue
    return db.run(lambda session: _first(session, []))


def _first(session: Session, wanted: list[HostRegister]) -> list[str]:
    """Flavors when there are none, hosts when none of their kind is registered. Names of all hosts."""
    if session.exec(select(Flavor.id).limit(1)).first() is None:
        for name, vcpus, ram_mib, disk_gib in FLAVORS:
            flavor.create(session, CLOUD, FlavorCreate(name=name, vcpus=vcpus, ram_mib=ram_mib, disk_gib=disk_gib))
    for each in wanted:
        known = select(Host.id).where(Host.hypervisor == each.hypervisor).limit(1)
        if session.exec(known).first() is None:
            host.enlist(session, CLOUD, each)
    return list(session.exec(select(Host.name).order_by(Host.name)))


def _name(kind: str) -> str:
    return f"{kind}-{socket.gethostname().split('.', 1)[0]}"[:255]
