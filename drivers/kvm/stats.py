"""One domain's bulk statistics read as the contract's machine or sample.

libvirt answers for all domains at once with flat key-value lists; this is the only place that knows their keys. It
makes no calls, so both ``list`` and ``sample`` stay one call however many machines there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import Machine, Power, Sample
from drivers.kvm import holders, names

STATE_GROUPS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
SAMPLE_GROUPS = STATE_GROUPS | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_INTERFACE

_POWER = {
    libvirt.VIR_DOMAIN_RUNNING: Power.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Power.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: Power.RUNNING,  # on its way: it still runs
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.SUSPENDED,
    libvirt.VIR_DOMAIN_SHUTOFF: Power.OFF,
    libvirt.VIR_DOMAIN_CRASHED: Power.CRASHED,
}
_OFF_REASONS = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: "migrated",
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: "saved",
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "failed",
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: "daemon",
}
_PAUSED_REASONS = {
    libvirt.VIR_DOMAIN_PAUSED_USER: "user",
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "ioerror",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "watchdog",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "starting",
}

_COUNTED = ("cpu.", "block.", "net.")

Values = Mapping[str, Any]


def power(values: Values, *, saved: bool = False) -> tuple[Power, str | None]:
    """State and the platform's reason. A QEMU that went without being told to is CRASHED, not OFF; one whose memory
    was ``saved`` is SUSPENDED.
    """
    state, why = values.get("state.state"), values.get("state.reason")
    seen = _POWER.get(state, Power.UNKNOWN)
    if seen is Power.OFF:
        if saved:
            return Power.SUSPENDED, "saved"
        return (Power.CRASHED if why == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED else Power.OFF), _OFF_REASONS.get(why)
    return seen, _PAUSED_REASONS.get(why) if seen is Power.PAUSED else None


def is_off(values: Values) -> bool:
    """Whether nothing runs, so that only the host's files tell whether memory was saved."""
    return bool(values.get("state.state") == libvirt.VIR_DOMAIN_SHUTOFF)


def machine(machine_id: UUID, name: str, values: Values, *, saved: bool = False) -> Machine:
    """The machine."""
    seen, reason = power(values, saved=saved)
    return Machine(
        id=machine_id,
        name=name,
        power=seen,
        vcpus=_vcpus(values),
        ram_mib=_ram_mib(values),
        volumes=volumes(values),
        reason=reason,
    )


def volumes(values: Values) -> dict[UUID, str]:
    """Volume ids to device names; a seed is none."""
    found = ((names.pool_file(path), device) for device, path in holders.blocks(dict(values)).items())
    return {file.id: device for file, device in found if file and file.kind == "volume"}


def sample(
    machine_id: UUID, at: datetime, values: Values, *, saved: bool = False, disk_names: AbstractSet[str] | None = None
) -> Sample:
    """The counters; those of disks are of our volumes, or of the disks of these names in the domain. A machine that is
    busy at this moment has those that libvirt gives; one that is off or suspended has none, even while libvirt still
    remembers its last ones.
    """
    if is_off(values):
        values = {key: value for key, value in values.items() if not key.startswith(_COUNTED)}
    counted = range(int(values.get("block.count", 0)))
    disks = [
        at for at in counted
        if (_is_volume(values, at) if disk_names is None else values[f"block.{at}.name"] in disk_names)
    ]  # fmt: skip
    nics = range(int(values.get("net.count", 0)))
    free = values.get("balloon.usable", values.get("balloon.unused"))
    available = values.get("balloon.available")
    return Sample(
        machine_id=machine_id,
        at=at,
        power=power(values, saved=saved)[0],
        cpu_time_ns=values.get("cpu.time"),
        vcpus=_vcpus(values),
        ram_mib=_ram_mib(values),
        ram_used_mib=None if free is None or available is None else (available - free) // 1024,
        disk_read_bytes=_sum(values, [f"block.{at}.rd.bytes" for at in disks]),
        disk_written_bytes=_sum(values, [f"block.{at}.wr.bytes" for at in disks]),
        disk_reads=_sum(values, [f"block.{at}.rd.reqs" for at in disks]),
        disk_writes=_sum(values, [f"block.{at}.wr.reqs" for at in disks]),
        net_received_bytes=_sum(values, [f"net.{at}.rx.bytes" for at in nics]),
        net_sent_bytes=_sum(values, [f"net.{at}.tx.bytes" for at in nics]),
    )


def _is_volume(values: Values, at: int) -> bool:
    file = names.pool_file(values.get(f"block.{at}.path", ""))
    return file is not None and file.kind == "volume"


def _vcpus(values: Values) -> int:
    return int(values.get("vcpu.current", values.get("vcpu.maximum", 0)))


def _ram_mib(values: Values) -> int:
    return int(values.get("balloon.maximum", values.get("balloon.current", 0))) // 1024


def _sum(values: Values, keys: list[str]) -> int | None:
    there = [int(values[key]) for key in keys if key in values]
    return sum(there) if there else None
