"""A server's row as the machine a driver is asked for, and what a driver says as an observation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

from sqlmodel import Session

from drivers.api import Capability, Devices, DiskSpec, Firmware, Machine, MachineSpec, NicSpec
from gateway.compute import machine_model
from gateway.compute import server as servers
from gateway.compute.host import Host
from gateway.compute.server import Server
from gateway.compute.server_state import Observed
from gateway.identity.tenant import Tenant
from gateway.kernel.prepared import get
from gateway.kernel.row import Row
from gateway.network import address, subnet
from gateway.network import port as ports
from gateway.network.network import Network
from gateway.volume import volume as volumes
from gateway.volume.volume import Volume
from workers.compute.seed import FirstBoot, Interface, build, hostname

R = TypeVar("R", bound=Row)


def spec(
    session: Session,
    server: Server,
    *,
    host: Host | None = None,
    tenant_uid: UUID | None = None,
    devices: machine_model.Devices | None = None,
    held: Sequence[Volume] | None = None,
    connected: Sequence[ports.Port] | None = None,
) -> MachineSpec:
    """The machine of a server, whole: root disk or boot volume first, data volumes by device, NICs in order; for its
    own host and with its own devices unless others are named. An adopted one is told nothing at a first boot, which it
    had long ago. ``tenant_uid``, ``held`` (its volumes) and ``connected`` (its ports) are given if they are known.
    """
    held = volumes.of_server(session, server.id) if held is None else held
    connected = ports.of_server(session, server.id) if connected is None else connected
    disks = [DiskSpec(volume.uid, volume.device or "") for volume in held]
    if server.root_uid is not None:
        disks.insert(0, DiskSpec(server.root_uid, "vda"))
    promised = ports.PortStatus.ATTACHING  # not on the host yet: its own job brings it there and plugs it in
    attached = [port for port in connected if port.status is not promised]
    nics = tuple(NicSpec(port.uid, _there(session, Network, port.network_id).uid, port.mac) for port in attached)
    public = servers.NOUN.public(server)
    tenant_uid = _there(session, Tenant, server.tenant_id).uid if tenant_uid is None else tenant_uid
    host = get(session, Host, server.host_id) if host is None else host
    serves = host is None or Capability.DHCP in host.capabilities
    boot = FirstBoot(
        instance_id=public,
        hostname=hostname(server.name),
        public_key=server.public_key,
        user_data=server.user_data,
        properties=server.properties,
        interfaces=tuple(_interface(session, port, serves=serves) for port in attached),
    )
    return MachineSpec(
        id=server.uid,
        name=server.name,
        vcpus=server.vcpus,
        ram_mib=server.ram_mib,
        disks=tuple(disks),
        nics=nics,
        seed=None if server.adopted else build(boot),
        firmware=Firmware(server.firmware.value),
        marks={"server": public, "tenant": f"{tenant_uid}"},
        devices=Devices((devices or server.devices).value),
    )


def _there(session: Session, kind: type[R], key: int) -> R:
    """A row that a foreign key promises."""
    found = get(session, kind, key)
    if found is None:
        raise LookupError(f"{kind.__name__} {key} is gone")
    return found


def _interface(session: Session, port: ports.Port, *, serves: bool) -> Interface:
    """A NIC as the guest is told it; static where the host has no DHCP (``serves``)."""
    subnets = {each.id: each for each in subnet.of_network(session, port.network_id)}
    found = [(each.subnet_id, each.address) for each in address.of_ports(session, [port.id]).get(port.id, [])]
    mine = [subnets[subnet_id] for subnet_id, _ in found]
    return Interface(
        mac=port.mac,
        dhcp=serves and any(s.dhcp for s in mine if ":" not in s.cidr),
        addresses=tuple(f"{text}/{subnets[subnet_id].cidr.partition('/')[2]}" for subnet_id, text in found),
        gateways=tuple(s.gateway for s in mine if s.gateway),
        dns_servers=tuple(dict.fromkeys(dns for s in mine for dns in s.dns_servers)),
    )


def observed(machine: Machine | None) -> Observed:
    """What a driver's answer means."""
    return Observed.ABSENT if machine is None else Observed(machine.power.value)
