"""What a simulated guest shows of itself: counters and boot log, both pure functions of what is recorded.

The counters of a machine follow from the host's seed, the machine's id and how long it has been running: the same
question about the same moment has the same answer in every process, and the totals never fall while it runs. The boot
log names what the machine really has (memory, disks, addresses, host name, keys) and says in its first line that it is
simulated. No guest runs; nothing here reads a clock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from drivers.sim.options import SECOND_NS
from drivers.sim.records import MachineRecord, PortRecord, VolumeRecord

BOOT_NS = 6 * SECOND_NS
BOOT_READ_BYTES = 48 * 1024 * 1024
PERIOD_SECONDS = 900.0
BLOCK_BYTES = 16_384
LOGIN = "login: "


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since power-on."""

    cpu_time_ns: int
    ram_used_mib: int
    disk_reads: int
    disk_read_bytes: int
    disk_writes: int
    disk_written_bytes: int
    net_received_bytes: int
    net_sent_bytes: int


@lru_cache(maxsize=65_536)
def _character(seed: str, machine_id: str) -> tuple[float, ...]:
    """Eight numbers from 0 to 1 that make this machine different from every other."""
    digest = hashlib.sha256(f"{seed}/{machine_id}".encode()).digest()
    return tuple(int.from_bytes(digest[at : at + 4]) / 2**32 for at in range(0, 32, 4))


def counters(seed: str, machine: MachineRecord, running_ns: int) -> Counters:
    """The totals of a machine that has been running for so long."""
    load, memory, reads, writes, received, sent, phase, _ = _character(seed, machine.id)
    booting_ns = min(running_ns, BOOT_NS)
    # A load of 2 to 50 % of the vCPUs that swings by half of itself over a quarter of an hour.
    load_ppm = int(20_000 + load * 480_000)
    angle = 2 * math.pi * (running_ns / SECOND_NS / PERIOD_SECONDS + phase)
    swing = math.cos(2 * math.pi * phase) - math.cos(angle)
    swing_ns = int(load_ppm / 1_000_000 * 0.5 * swing * PERIOD_SECONDS / (2 * math.pi) * SECOND_NS)
    steady_ns = running_ns * load_ppm // 1_000_000
    cpu_ns = machine.vcpus * max(0, steady_ns + swing_ns) + booting_ns // 4 * machine.vcpus
    used = min(running_ns / BOOT_NS, 1.0) * machine.ram_mib * (0.1 + 0.7 * memory) * (0.95 + 0.05 * math.sin(angle))
    disk_reads = running_ns * int(1 + reads * 80) // SECOND_NS
    disk_writes = running_ns * int(1 + writes * 40) // SECOND_NS
    boot_bytes = BOOT_READ_BYTES * booting_ns // BOOT_NS
    nics = len(machine.nics)
    return Counters(
        cpu_ns,
        max(1, int(used)),
        disk_reads + boot_bytes // BLOCK_BYTES,
        disk_reads * BLOCK_BYTES + boot_bytes,
        disk_writes,
        disk_writes * BLOCK_BYTES,
        nics * (running_ns * int(200 + received * 50_000) // SECOND_NS),
        nics * (running_ns * int(200 + sent * 20_000) // SECOND_NS),
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the guest finds when it starts: its host's name, its disks and its ports, in guest order."""

    host: str
    boot_ms: int
    volumes: dict[str, VolumeRecord]
    ports: dict[str, PortRecord]


def console_log(machine: MachineRecord, around: Surroundings, now_ns: int) -> bytes:
    """All that the machine wrote on its serial port since it was made, up to now."""
    text: list[str] = []
    for begun, ended, how in machine.starts:
        until_ns = now_ns if ended is None else int(ended)
        up_ms = (until_ns - int(begun or 0)) // 1_000_000
        lines = list(_boot_lines(machine, around))
        # With `boot_ms` set, a line is written when its share of that time is over; else all at once.
        shown = len(lines) if not around.boot_ms else min(len(lines), up_ms * len(lines) // around.boot_ms)
        text += lines[:shown]
        if ended is not None and how in LAST_WORDS:
            text.append(f"\n[{up_ms / 1000:12.6f}] {LAST_WORDS[str(how)]}")
    return "\n".join(text).encode()


LAST_WORDS = {
    "shutdown": "reboot: Power down\n",
    "reboot": "reboot: Restarting system\n",
    "crashed": "Kernel panic - not syncing: simulated crash\n",
}


def _boot_lines(machine: MachineRecord, around: Surroundings) -> Iterator[str]:
    yield f"[simulated] {machine.name} is a simulated guest on sim://{around.host}; no code runs, this log is made up."
    at = 0.0

    def kernel(line: str, seconds: float = 0.011) -> str:
        nonlocal at
        at += seconds
        return f"[{at:12.6f}] {line}"

    yield kernel("Linux version 6.12.0-simulated (stratograph@sim) #1 SMP PREEMPT_DYNAMIC", 0.0)
    yield kernel("Command line: root=/dev/vda1 ro console=ttyS0")
    yield kernel(f"DMI: Stratograph Simulated Machine, {machine.firmware} firmware, UUID {machine.id}")
    yield kernel(f"Memory: {machine.ram_mib * 1024 * 9 // 10}K/{machine.ram_mib * 1024}K available", 0.09)
    yield kernel(f"smp: Brought up 1 node, {machine.vcpus} CPU{'s' if machine.vcpus > 1 else ''}", 0.12)
    if not machine.disks:
        yield kernel("VFS: Unable to mount root fs: no bootable disk", 0.5)
        return
    for volume_id, device in machine.disks.items():
        volume = around.volumes.get(volume_id)
        blocks = (volume.size_bytes if volume else 0) // 512
        serial = UUID(volume_id).hex[:20]
        yield kernel(f"virtio_blk: [{device}] {blocks} 512-byte logical blocks, serial {serial}", 0.04)
    yield kernel("EXT4-fs (vda1): mounted filesystem with ordered data mode", 0.3)
    yield kernel("systemd[1]: Hostname set to <" + machine.hostname + ">.", 0.4)
    for number, port_id in enumerate(machine.nics):
        port = around.ports.get(port_id)
        if port is not None:
            addresses = ", ".join(port.addresses) or "no address"
            yield kernel(f"cloud-init: eth{number} up, {port.mac}, {addresses}", 0.7)
    seed = f"seed {machine.seed_sha256[:12]} from NoCloud" if machine.seed_sha256 else "no seed found"
    yield kernel(f"cloud-init: {seed}, instance {machine.id}, host name {machine.hostname}", 0.2)
    yield kernel(f"cloud-init: {machine.ssh_keys} authorized ssh key{'' if machine.ssh_keys == 1 else 's'}", 0.1)
    yield kernel("systemd[1]: Reached target multi-user.target - Multi-User System.", 0.6)
    yield f"\nStratograph simulated Linux {machine.hostname} ttyS0\n"
    yield f"{machine.hostname} {LOGIN}"
