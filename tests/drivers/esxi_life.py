"""The life of one machine on an ESXi host, step by step, for tests that disturb it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import uuid4

from drivers import api
from drivers.api import Deadline, Driver, ImageSpec, Power, PowerAction, Snapshots, Transient
from tests.drivers.esxi_host import MIB, SECONDS

T = TypeVar("T")


@dataclass
class Life:
    """The life of one machine with all that belongs to it, each step asked again while the answer is Transient."""

    driver: Driver
    base: ImageSpec
    look: Callable[[Life], None]
    transients: int = 0

    def __post_init__(self) -> None:
        self.image, self.root, self.data, self.copy, self.machine, self.network, self.port = (uuid4() for _ in range(7))

    def ask(self, verb: Callable[..., T], *arguments: Any) -> T:
        deadline = Deadline(SECONDS)
        while True:
            try:
                return verb(*arguments, deadline)
            except Transient:
                self.transients += 1
                deadline.check("asking again")
                time.sleep(0.01)

    def run(self) -> None:
        driver = self.driver
        assert isinstance(driver, Snapshots)
        base = replace(self.base, id=self.image)
        self.ask(driver.volumes.ensure_image, base)
        root = self.ask(driver.volumes.ensure, api.VolumeSpec(self.root, 2 * MIB, image_id=self.image))
        data = self.ask(driver.volumes.ensure, api.VolumeSpec(self.data, MIB))
        assert (root.size_bytes, data.size_bytes) == (2 * MIB, MIB)
        self.ask(driver.networks.ensure, api.NetworkSpec(self.network, "n"))
        port = api.PortSpec(self.port, self.network, "52:54:00:00:00:01", ("10.0.0.5",), rules=None)
        self.ask(driver.networks.ensure_port, port)
        nic = api.NicSpec(self.port, self.network, port.mac)
        disk = api.DiskSpec(self.root, "vda")
        made = self.ask(driver.machines.ensure, api.MachineSpec(self.machine, "m", 1, 64, (disk,), (nic,)))
        assert made.power is Power.OFF
        assert self.ask(driver.machines.power, self.machine, PowerAction.ON).power is Power.RUNNING
        attached = self.ask(driver.machines.attach, self.machine, api.DiskSpec(self.data, "vdb"))
        assert dict(attached.volumes) == {self.root: "vda", self.data: "vdb"}
        assert self.ask(driver.snapshot, self.data, self.copy).size_bytes == MIB
        assert self.ask(driver.machines.power, self.machine, PowerAction.RESET).power is Power.RUNNING
        assert self.machine in {each.machine_id for each in self.ask(driver.machines.sample)}
        self.look(self)
        assert self.data not in self.ask(driver.machines.detach, self.machine, self.data).volumes
        assert self.ask(driver.machines.power, self.machine, PowerAction.OFF).power is Power.OFF
        self.ask(driver.machines.remove, self.machine)
        self.ask(driver.networks.remove_port, self.network, self.port)
        self.ask(driver.networks.remove, self.network)
        self.ask(driver.remove_snapshot, self.copy)
        for volume in (self.root, self.data):
            self.ask(driver.volumes.remove, volume)
        self.ask(driver.volumes.remove_image, self.image)


def nothing_of_ours(driver: Driver) -> None:
    deadline = Deadline(SECONDS)
    assert isinstance(driver, Snapshots)
    assert not driver.machines.list(deadline)
    assert not driver.volumes.list(deadline)
    assert not driver.volumes.list_images(deadline)
    assert not driver.networks.list(deadline)
    assert not driver.networks.list_ports(deadline)
    assert not driver.list_snapshots(deadline)
