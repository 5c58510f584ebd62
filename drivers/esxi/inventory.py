"""Which of a host's machines are ours, found in few calls and few bytes however many others it runs.

First every machine is asked for no more than tells whose it is, then ours alone for what is wanted of them. A machine
of somebody else's is remembered under the instance UUID that it had: it can only become ours by getting our id in its
place, so its marks need not be read again while that stays. What is remembered saves bytes and decides nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyVmomi import vmodl

from drivers.api import Deadline
from drivers.esxi import bulk, reading
from drivers.esxi.site import Site, reference

IDENTITY = "config.instanceUuid"
MARKS = "config.extraConfig"
DEVICES = "config.hardware.device"
MANY, FEWER = 5000, 500
"""Machines a page, when little and when much is asked of each."""


class Inventory:
    """Shared by threads."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._strangers: Mapping[str, str] | None = None  # instance UUID by reference; None: nobody was asked yet

    def ours(self, names: tuple[str, ...], deadline: Deadline) -> list[bulk.Found]:
        """Our machines on the host, each with identity, marks and those of the properties that are set."""
        wanted = tuple(dict.fromkeys((IDENTITY, MARKS, *names)))
        strangers = self._strangers
        everyone = self._everyone((IDENTITY, MARKS) if strangers is None else (IDENTITY,), deadline)
        if strangers is None:
            candidates = [machine for machine, seen in everyone if reading.is_ours(seen)]
        else:
            candidates = [at for at, seen in everyone if IDENTITY in seen and _known(strangers, at) != seen[IDENTITY]]
        found = [each for each in self._told(candidates, wanted, deadline) if reading.is_ours(each[1])]
        known = {reference(machine) for machine, _ in found}
        identities = {reference(machine): seen.get(IDENTITY) for machine, seen in everyone}
        self._strangers = {ref: str(each) for ref, each in identities.items() if each and ref not in known}
        return found

    def _told(self, machines: list[Any], names: tuple[str, ...], deadline: Deadline) -> list[bulk.Found]:
        if not machines:
            return []
        session = self._site.session
        try:
            return self._site.look(lambda: bulk.several(session, machines, names, FEWER), deadline)
        except vmodl.fault.ManagedObjectNotFound:  # one went between the two questions
            return self._everyone(names, deadline)

    def _everyone(self, names: tuple[str, ...], deadline: Deadline) -> list[bulk.Found]:
        site, page = self._site, FEWER if DEVICES in names else MANY
        return site.look(lambda: bulk.related(site.session, site.host, "vm", names, page), deadline)


def _known(strangers: Mapping[str, str], machine: Any) -> str | None:
    return strangers.get(reference(machine))
