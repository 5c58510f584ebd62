"""The end of first-boot data: what the guest has read is taken out of the host's sight.

User data may hold secrets, and stays readable in a machine's configuration or on its ISO to whoever may look at the
host. It goes when the machine stops after its first start, or starts again; not at a reboot, for a guest may need it
until its first boot came to its end. That it was started is noted after the start succeeded: a start that failed and is
tried again must find the data. Cloud-init is told to empty the keys itself as soon as it has read them (seed.py).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import Deadline, PowerAction
from drivers.esxi import hardware, reading, seed
from drivers.esxi.site import Site
from drivers.esxi.store import Store

MACHINES = "machines"
SEED_ISO = "seed.iso"
STOPS = frozenset({PowerAction.OFF, PowerAction.SHUTDOWN})
OFF = "poweredOff"


def before(site: Site, machine: Any, found: reading.Properties, action: PowerAction, deadline: Deadline) -> None:
    """Empty what the guest has read, ahead of a power action."""
    marks, off = reading.marks_of(found), str(found.get("runtime.powerState")) == OFF
    again = action is PowerAction.ON and off and bool(marks.get(seed.STARTED))
    if again or (action in STOPS and (not off or marks.get(seed.STARTED))):
        _tell(site, machine, {**seed.blanked(marks), **_started(marks)}, deadline)


def after(store: Store, machine: Any, machine_id: UUID, deadline: Deadline) -> None:
    """Note that the machine was started; take its ISO away once it is off after that."""
    names = ("config.extraConfig", "config.hardware.device", "runtime.powerState")
    found = store.site.look(lambda: reading.one(store.site.content, machine, names), deadline)
    marks = reading.marks_of(found)
    if str(found.get("runtime.powerState")) != OFF:
        _tell(store.site, machine, _started(marks), deadline)
    elif marks.get(seed.STARTED):
        _eject(store, machine, machine_id, found.get("config.hardware.device") or (), deadline)


def _started(marks: dict[str, Any]) -> dict[str, str]:
    return {} if marks.get(seed.STARTED) else {seed.STARTED: "yes"}


def _tell(site: Site, machine: Any, told: dict[str, str], deadline: Deadline) -> None:
    if told:
        change = vim.vm.ConfigSpec(extraConfig=hardware.options(told))
        site.carry_out(lambda: machine.ReconfigVM_Task(change), deadline)


def _eject(store: Store, machine: Any, machine_id: UUID, devices: Any, deadline: Deadline) -> None:
    """Remove the drive, then delete the file; no running guest has a hand on its door."""
    file = f"{MACHINES}/{machine_id}/{SEED_ISO}"
    path = store.path(file, deadline)
    drives = [each for each in devices if isinstance(each, vim.vm.device.VirtualCdrom)]
    ours = [each for each in drives if getattr(each.backing, "fileName", None) == path]
    if ours:
        change = [vim.vm.device.VirtualDeviceSpec(operation="remove", device=each) for each in ours]
        store.site.carry_out(lambda: machine.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=change)), deadline)
        store.delete(file, deadline)
