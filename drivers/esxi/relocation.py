"""Moves machines between hosts of one vCenter that share their disks (option ``shared``): vMotion when they run.

The host alone changes; files stay where they are, since all hosts of such a pool know them under one folder. After an
answer that was lost, the machine's host tells what happened. What the target must have is looked at before anything
moves, for a simulator refuses nothing and a host refuses late.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import Capability, Deadline, HostConfig, Machine, Power, Refused, Transient, Unsupported
from drivers.esxi import options, reading, segments, trust
from drivers.esxi.site import Site, reference, verb

MOVABLE = frozenset({Power.RUNNING, Power.OFF})


class Relocating:
    """The way of a machine from this host to another."""

    def __init__(self, site: Site) -> None:
        self.site = site

    @verb
    def relocate(self, machine_id: UUID, target: HostConfig, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Relocation.relocate`."""
        there = self._target(target, deadline)
        with self.site.only(deadline, "machine", str(machine_id)):
            machine, found = self._find(machine_id, deadline)
            at = reference(found["runtime.host"])
            if at not in {there.host_id, self.site.host_id}:
                raise Refused(f"there is no machine {machine_id} on this host")
            if at != there.host_id:
                self._check(found, there, deadline)
                place = there.place(deadline)
                spec = vim.vm.RelocateSpec(host=there.host, pool=place.pool)
                self.site.carry_out(lambda: machine.RelocateVM_Task(spec), deadline)
                _, found = self._find(machine_id, deadline)
            seen = reading.our_machine(found)
            if seen is None or reference(found["runtime.host"]) != there.host_id:
                raise Transient("the machine did not arrive")
            return seen

    def _target(self, config: HostConfig, deadline: Deadline) -> Site:
        """The other host, on this very session. Raises Unsupported when it shares nothing with ours."""
        at, mine, wanted = trust.endpoint(config), self.site.session.endpoint, options.read(config)
        if (at.host, at.port) != (mine.host, mine.port):
            raise Unsupported(Capability.RELOCATE, "the hosts are not of one vCenter")
        if wanted.shared is None or wanted.shared != self.site.options.shared:
            raise Unsupported(Capability.RELOCATE, "the hosts do not share their disks; see the option 'shared'")
        every = self.site.look(lambda: reading.hosts(self.site.content), deadline)
        fitting = [host for host, found in every if at.inventory_host in {None, found["name"]}]
        if len(fitting) != 1:
            raise Refused(f"vCenter has no host {at.inventory_host!r}")
        there = Site(self.site.session, reference(fitting[0]), wanted)
        here, other = self.site.place(deadline), there.place(deadline)
        if reference(here.datastore) != reference(other.datastore):
            raise Unsupported(Capability.RELOCATE, "the hosts do not keep their disks on one datastore")
        return there

    def _find(self, machine_id: UUID, deadline: Deadline) -> tuple[Any, reading.Properties]:
        content = self.site.content

        def ask() -> tuple[Any, reading.Properties] | None:
            found = content.searchIndex.FindByUuid(None, str(machine_id), True, True)
            return None if found is None else (found, reading.one(content, found, (*reading.MACHINE, "runtime.host")))

        found = self.site.look(ask, deadline)
        if found is None or reading.our_machine(found[1]) is None:
            raise Refused(f"there is no machine {machine_id} on this host")
        return found

    def _check(self, found: reading.Properties, there: Site, deadline: Deadline) -> None:
        seen = reading.our_machine(found)
        if seen is None or seen.power not in MOVABLE:
            raise Refused(f"the machine is {seen.power if seen else 'gone'}; only one that runs or is off moves")
        ours, theirs = segments.of(self.site), segments.of(there)
        present = set(theirs.ids(deadline))
        plugged = {key for key, _ in reading.nics(found.get("config.hardware.device") or ())}
        for network_id in ours.ids(deadline):
            if ours.key(network_id, deadline) in plugged and network_id not in present:
                raise Refused(f"the other host has no network {network_id}")
