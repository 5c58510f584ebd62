"""A connection to one ESXi host, direct or through vCenter: it looks, and refuses what would make or change.

Machines are ours when the mark in their extraConfig names their own instance UUID; nothing else is ever shown. All that
writes raises Unsupported until the driver is complete, and no capability is declared for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn
from uuid import UUID

from pyVmomi import vim

from drivers import api
from drivers.api import Capability, Deadline, HostAtFault, HostConfig, HostFacts, Machine, Refused, Unsupported
from drivers.esxi import reading
from drivers.esxi.session import Session
from drivers.esxi.trust import endpoint


def connect(config: HostConfig, deadline: Deadline) -> EsxiConnection:
    """Log in and find the host. Raises Refused for a wrong configuration, HostAtFault for TLS and login."""
    at = endpoint(config)
    session = Session(at, deadline)
    try:
        return EsxiConnection(session, _pick(session, at.inventory_host, deadline))
    except BaseException:
        session.close()
        raise


def _pick(session: Session, name: str | None, deadline: Deadline) -> str:
    """The reference of the host: the only one, or the one of that name."""
    found = session.read(lambda: reading.hosts(session.content), deadline)
    names = sorted(str(each["name"]) for _, each in found)
    fitting = [host for host, each in found if name is None or each["name"] == name]
    if len(fitting) != 1:
        raise Refused(f"option 'host' has to name one of this endpoint's hosts: {', '.join(names) or 'it has none'}")
    return str(fitting[0]._moId)  # noqa: SLF001 - pyVmomi's only name for an object's reference


def _not_yet(capability: Capability) -> NoReturn:
    raise Unsupported(capability, "the ESXi driver looks at hosts, it does not make or change anything yet")


class EsxiMachines:
    """See :class:`drivers.api.Machines`; looks only."""

    def __init__(self, session: Session, host: str) -> None:
        self._session = session
        self._host = host

    def inspect(self, machine_id: UUID, deadline: Deadline) -> Machine | None:
        """See :meth:`drivers.api.Machines.inspect`."""

        def ask() -> Machine | None:
            content = self._session.content
            # By instance UUID in the whole inventory; vCenter may have moved it to another host than this one.
            found = content.searchIndex.FindByUuid(None, str(machine_id), True, True)
            if found is None:
                return None
            properties = reading.one(content, found, (*reading.MACHINE, "runtime.host"))
            host = properties.get("runtime.host")
            here = host is not None and host._moId == self._host  # noqa: SLF001 - as above
            return reading.our_machine(properties) if here else None

        return self._session.read(ask, deadline)

    def list(self, deadline: Deadline) -> Sequence[Machine]:
        """See :meth:`drivers.api.Machines.list`."""

        def ask() -> Sequence[Machine]:
            host = self._session.managed(vim.HostSystem, self._host)
            found = reading.related(self._session.content, host, "vm", vim.VirtualMachine, reading.MACHINE)
            machines = [reading.our_machine(properties) for _, properties in found]
            return [each for each in machines if each is not None]

        return self._session.read(ask, deadline)

    def ensure(self, spec: api.MachineSpec, deadline: Deadline) -> NoReturn:  # noqa: ARG002 - the contract's
        """Unsupported."""
        _not_yet(Capability.MACHINES)

    def remove(self, machine_id: UUID, deadline: Deadline) -> NoReturn:  # noqa: ARG002 - the contract's
        """Unsupported."""
        _not_yet(Capability.MACHINES)

    def power(self, machine_id: UUID, action: api.PowerAction, deadline: Deadline) -> NoReturn:  # noqa: ARG002 - as above
        """Unsupported."""
        _not_yet(Capability.MACHINES)

    def attach(self, machine_id: UUID, disk: api.DiskSpec, deadline: Deadline) -> NoReturn:  # noqa: ARG002 - as above
        """Unsupported."""
        _not_yet(Capability.MACHINES)

    def detach(self, machine_id: UUID, volume_id: UUID, deadline: Deadline) -> NoReturn:  # noqa: ARG002 - as above
        """Unsupported."""
        _not_yet(Capability.MACHINES)

    def sample(self, deadline: Deadline) -> NoReturn:  # noqa: ARG002 - the contract's
        """Unsupported."""
        _not_yet(Capability.MACHINES)


class _Absent:
    """A facet of which every verb is Unsupported."""

    def __init__(self, capability: Capability) -> None:
        self._capability = capability

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def verb(*_: object, **__: object) -> NoReturn:
            _not_yet(self._capability)

        return verb


class EsxiConnection:
    """See :class:`drivers.api.Driver`."""

    def __init__(self, session: Session, host: str) -> None:
        self._session = session
        self._host = host
        self.machines: api.Machines = EsxiMachines(session, host)
        self.volumes: api.Volumes = _Absent(Capability.VOLUMES)
        self.networks: api.Networks = _Absent(Capability.NETWORKS)

    def facts(self, deadline: Deadline) -> HostFacts:
        """See :meth:`drivers.api.Driver.facts`."""

        def ask() -> HostFacts:
            content = self._session.content
            host = self._session.managed(vim.HostSystem, self._host)
            found = reading.one(content, host, reading.HOST)
            if found.get("summary.runtime.connectionState", "connected") != "connected":
                raise HostAtFault("vCenter is not connected to the host", vendor_code="HostNotConnected")
            names = ("summary.capacity", "summary.accessible")
            stores = reading.related(content, host, "datastore", vim.Datastore, names)
            return reading.facts_of(found, [each for _, each in stores])

        return self._session.read(ask, deadline)

    def close(self) -> None:
        """See :meth:`drivers.api.Driver.close`."""
        self._session.close()
