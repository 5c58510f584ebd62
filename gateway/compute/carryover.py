"""What a move to another host carries over, and what it does not: told before anything is done, kept with the record.

Only what is known for certain is said, one sentence each. Nothing is decided here but what the new machine looks like
to its guest; whether a host can take the server at all is placement's to say (gateway.compute.migration).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlmodel import Session, col, select

from gateway.compute.host import Hypervisor
from gateway.compute.machine_model import CopyWhile, Devices, Firmware, GuestConversion
from gateway.compute.server import Server
from gateway.compute.server_state import Observed
from gateway.network import port as ports
from gateway.volume.snapshot import Snapshot
from gateway.volume.volume import Volume

if TYPE_CHECKING:
    from gateway.compute.migration import Migration


class NoteKind(StrEnum):
    """What a move does not carry over, or changes."""

    __graphql_name__ = "MigrationNoteKind"

    DOWNTIME = "DOWNTIME"
    """The server is off for a while."""
    DEVICES = "DEVICES"
    """What the guest's disks and interfaces look like to it."""
    FIRMWARE = "FIRMWARE"
    """What starts the guest."""
    SECURITY_GROUPS = "SECURITY_GROUPS"
    """Packet rules."""
    ADDRESSES = "ADDRESSES"
    """How the guest comes by its addresses."""
    INTERFACES = "INTERFACES"
    """Network interfaces."""
    REACH = "REACH"
    """Whom the server reaches on its networks."""
    SNAPSHOTS = "SNAPSHOTS"
    """Snapshots."""
    CONSOLE_LOG = "CONSOLE_LOG"
    """What the guest wrote on its serial port so far."""
    OLD_MACHINE = "OLD_MACHINE"
    """What becomes of the machine that it leaves."""
    CONTENT = "CONTENT"
    """What is on the disks."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to know before a server is moved."""

    kind: NoteKind
    message: str

    def told(self) -> dict[str, str]:
        """As kept in the row."""
        return {"kind": self.kind.value, "message": self.message}


def devices_after(server: Server, migration: Migration) -> Devices:
    """What the machine looks like to its guest on the new host."""
    if migration.conversion is GuestConversion.VIRT_V2V or migration.to_hypervisor is Hypervisor.ESXI:
        return Devices.OWN
    return Devices.VMWARE if migration.from_hypervisor is Hypervisor.ESXI else server.devices


def notes(session: Session, server: Server, migration: Migration) -> list[Note]:
    """What will not carry over, or change, in a fixed order."""
    there = migration.to_hypervisor.value
    found = [_downtime(server, migration), *_machine_notes(server, migration)]
    if migration.from_hypervisor is not migration.to_hypervisor:
        kept = "what the guest wrote on its serial port so far stays with the old machine"
        found.append(Note(NoteKind.CONSOLE_LOG, f"The console log begins anew: {kept}."))
    found += _port_notes(session, server, there)
    volume_ids = select(Volume.id).where(Volume.server_id == server.id)
    count = len(session.exec(select(Snapshot.id).where(col(Snapshot.volume_id).in_(volume_ids))).all())
    if count:
        text = f"{count} volume snapshots stay on the old host and can be used there only."
        found.append(Note(NoteKind.SNAPSHOTS, text))
    return found


def _downtime(server: Server, migration: Migration) -> Note:
    text = f"The server is off while {migration.disk_gib} GiB of disks are carried over."
    if migration.copy_while is CopyWhile.RUNNING:
        text = (
            f"The server runs while {migration.disk_gib} GiB are copied from snapshots, each of which takes room on "
            "its host for a while; then it is off while its disks are read again, and those that changed copied again."
        )
    if server.observed is not Observed.RUNNING:
        text = f"{migration.disk_gib} GiB of disks are carried over; the server is off and stays off."
    return Note(NoteKind.DOWNTIME, text)


def _machine_notes(server: Server, migration: Migration) -> list[Note]:
    found = []
    if migration.conversion is GuestConversion.VIRT_V2V:
        found.append(Note(NoteKind.CONTENT, "virt-v2v changes the disks: their checksums will not be equal."))
    elif devices_after(server, migration) is Devices.VMWARE:
        text = "The guest keeps VMware's devices (pvscsi, vmxnet3); virtio can come later, when it has the drivers."
        found.append(Note(NoteKind.DEVICES, text))
    elif migration.to_hypervisor is Hypervisor.ESXI and migration.from_hypervisor is not Hypervisor.ESXI:
        text = "The guest needs drivers for pvscsi and vmxnet3: those are the devices it will find."
        found.append(Note(NoteKind.DEVICES, text))
    if server.firmware is Firmware.UEFI:
        text = "Boot entries kept by the UEFI firmware are not carried over: the disk's default loader is started."
        found.append(Note(NoteKind.FIRMWARE, text))
    if server.in_place:
        text = "The adopted machine is not deleted in the end: it is handed back, off, with its disks."
        found.append(Note(NoteKind.OLD_MACHINE, text))
    return found


def _port_notes(session: Session, server: Server, there: str) -> list[Note]:
    mine = ports.of_server(session, server.id)
    found = []
    known = {port.mac.lower() for port in mine}
    for nic in server.origin.get("nics", ()) if server.in_place else ():
        if nic["mac"].lower() not in known:
            on = f" on {nic['network']}" if nic.get("network") else ""
            text = f"The interface {nic['mac']}{on} is on no network of the cloud and is left behind."
            found.append(Note(NoteKind.INTERFACES, text))
    open_ports = sum(not port.port_security for port in mine)
    if open_ports:
        text = f"{open_ports} of {len(mine)} ports have no security groups: nothing filters their packets there."
        found.append(Note(NoteKind.SECURITY_GROUPS, text))
    if mine:
        text = "MAC and IP addresses stay; a guest that was told them at its first boot keeps what it was told."
        found.append(Note(NoteKind.ADDRESSES, text))
    others = select(ports.Port.id).where(
        col(ports.Port.network_id).in_([port.network_id for port in mine]), ports.Port.host_id == server.host_id,
        ports.Port.server_id != server.id,
    )  # fmt: skip
    left = len(session.exec(others).all()) if mine else 0
    if left:
        text = f"{left} other ports of its networks stay on the old host; a network on {there} may not reach them."
        found.append(Note(NoteKind.REACH, text))
    return found
