"""What a driver's author hands to the contract, and the few tools its tests share.

A :class:`Rig` is one host under test with everything the tests need to know about it. :func:`unchanged` is the heart
of every refusal test: it compares all that the driver lists before and after. Nothing here knows a driver by name, and
nothing sleeps and hopes: :func:`wait_for` looks until a condition holds or its time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import VERBS, Capability, Deadline
from drivers.contracts.findings import Findings

MIB = 1024 * 1024


@dataclass(frozen=True)
class Elsewhere:
    """Another host to move machines to: how it is reached, an open connection to it, and the way back."""

    config: api.HostConfig
    connect: Callable[[], api.Driver]
    back: api.HostConfig


@dataclass
class Rig:
    """One host under test. The host is used by this test run alone, and every test leaves it as it found it.

    ``connect`` opens another connection to the same host. ``image`` is a small real image in one of the type's
    formats: bootable when ``ready`` is set, which is text its guest writes on the serial port once it is up and
    listens to ACPI. ``seconds`` bounds one verb, ``boot_seconds`` the way to ``ready``. ``stop_behind_our_back``
    stops a running machine with the platform's own tools, ``foreign`` has a machine of somebody else's on the host for
    a while (off, with two disks and an interface) and gives its ref. ``cidr`` is a format string with one number (0 to
    250) that gives ranges which are free on the host.
    """

    driver: api.Driver
    type: api.DriverType
    image: api.ImageSpec
    connect: Callable[[], api.Driver]
    seconds: float = 10.0
    boot_seconds: float = 60.0
    ready: bytes | None = None
    stop_behind_our_back: Callable[[UUID], None] | None = None
    foreign: Callable[[], AbstractContextManager[str]] | None = None
    vcpus: int = 1
    ram_mib: int = 128
    volume_bytes: int = 16 * MIB
    cidr: str = "10.231.{}.0/24"
    lacks: frozenset[Capability] = frozenset()
    elsewhere: Elsewhere | None = None
    found: Findings = field(default_factory=Findings)
    _numbers: Iterator[int] = field(default_factory=lambda: count(0))

    @property
    def deadline(self) -> Deadline:
        """A fresh deadline for one verb."""
        return Deadline(self.seconds)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this connection can do."""
        return api.capabilities(self.driver, self.type)

    def has(self, capability: Capability) -> bool:
        """Whether this connection can do that."""
        return capability in self.capabilities

    def need(self, *wanted: Capability) -> None:
        """Leave a test that has no meaning for this driver; its absence is tested by a test of its own."""
        for capability in wanted:
            if not self.has(capability):
                if capability in VERBS:
                    self.lacking(capability)
                pytest.skip(f"{self.type.kind} declares no {capability}")

    def works(self, *shown: Capability) -> None:
        """Say that these were seen to work. A driver that can more than it declares is at fault, too."""
        for capability in shown:
            assert self.has(capability), f"{capability} works and is not declared"
        self.found.works |= set(shown)

    def lacking(self, verbs: Capability) -> None:
        """Hold that the connection has none of these optional verbs and declares none."""
        assert not isinstance(self.driver, VERBS[verbs]) or verbs in self._withheld, f"{verbs} has its verbs"
        assert not self.has(verbs), f"{verbs} is declared, and there are no verbs"
        self.found.lacks.add(verbs)

    @property
    def _withheld(self) -> frozenset[Capability]:
        return self.driver.withheld if isinstance(self.driver, api.Restricted) else frozenset()

    # ------------------------------------------------------------------------------------- specs

    def free_cidr(self) -> str:
        """A range that no other test of this run uses."""
        return self.cidr.format(next(self._numbers) % 250)

    def network_spec(self) -> api.NetworkSpec:
        """A network with one range, DHCP when the driver has it."""
        cidr = self.free_cidr()
        subnet = api.SubnetSpec(uuid4(), cidr, _address(cidr, 1), dhcp=self.has(Capability.DHCP))
        return api.NetworkSpec(uuid4(), "contract", (subnet,))

    def port_spec(self, network: api.NetworkSpec, last_byte: int = 10) -> api.PortSpec:
        """A port on that network; everything may pass when the driver has security groups, else no filtering."""
        identity = uuid4()
        mac = "52:54:00:{:02x}:{:02x}:{:02x}".format(*identity.bytes[-3:])
        rules = (
            tuple(api.RuleSpec(direction, 4) for direction in (api.Direction.INGRESS, api.Direction.EGRESS))
            if self.has(Capability.SECURITY_GROUPS)
            else None
        )
        return api.PortSpec(
            identity, network.id, mac, (_address(network.subnets[0].cidr, last_byte),), "contract", rules
        )

    def machine_spec(self, *volumes: UUID, port: api.PortSpec | None = None) -> api.MachineSpec:
        """A machine with these disks (``vda``, ``vdb`` ...) and at most one port."""
        identity = uuid4()
        disks = tuple(api.DiskSpec(volume, f"vd{chr(ord('a') + at)}") for at, volume in enumerate(volumes))
        nics = (api.NicSpec(port.id, port.network_id, port.mac),) if port else ()
        files = {
            "meta-data": f"instance-id: {identity}\nlocal-hostname: contract\n".encode(),
            "user-data": b"#cloud-config\n",
        }
        return api.MachineSpec(
            identity,
            f"contract-{str(identity)[:8]}",
            self.vcpus,
            self.ram_mib,
            disks,
            nics,
            api.Seed(files),
            marks={"contract": "yes"},
        )

    # ------------------------------------------------------------------------------------- objects that clean up

    @contextmanager
    def volume(self, size_bytes: int | None = None) -> Iterator[UUID]:
        """A blank volume for the length of a test."""
        identity = uuid4()
        self.driver.volumes.ensure(api.VolumeSpec(identity, size_bytes or self.volume_bytes), self.deadline)
        try:
            yield identity
        finally:
            self.driver.volumes.remove(identity, self.deadline)

    @contextmanager
    def boot_volume(self) -> Iterator[UUID]:
        """A volume made from the rig's image. The image stays on the host for the next test."""
        self.driver.volumes.ensure_image(self.image, self.deadline)
        identity = uuid4()
        spec = api.VolumeSpec(identity, self.image.virtual_size_bytes, image_id=self.image.id)
        self.driver.volumes.ensure(spec, self.deadline)
        try:
            yield identity
        finally:
            self.driver.volumes.remove(identity, self.deadline)

    @contextmanager
    def network(self) -> Iterator[api.NetworkSpec]:
        """A network for the length of a test."""
        spec = self.network_spec()
        self.driver.networks.ensure(spec, self.deadline)
        try:
            yield spec
        finally:
            self.driver.networks.remove(spec.id, self.deadline)

    @contextmanager
    def port(self, network: api.NetworkSpec, last_byte: int = 10) -> Iterator[api.PortSpec]:
        """A port for the length of a test."""
        spec = self.port_spec(network, last_byte)
        self.driver.networks.ensure_port(spec, self.deadline)
        try:
            yield spec
        finally:
            self.driver.networks.remove_port(spec.network_id, spec.id, self.deadline)

    @contextmanager
    def machine(self, *volumes: UUID, port: api.PortSpec | None = None) -> Iterator[api.MachineSpec]:
        """A machine that is off, with these disks."""
        spec = self.machine_spec(*volumes, port=port)
        self.driver.machines.ensure(spec, self.deadline)
        try:
            yield spec
        finally:
            self.driver.machines.remove(spec.id, self.deadline)

    def power(self, machine_id: UUID, action: api.PowerAction) -> api.Power:
        """Carry out a power action and answer with the power seen afterwards."""
        return self.driver.machines.power(machine_id, action, self.deadline).power


def _address(cidr: str, last_byte: int) -> str:
    return f"{cidr.rsplit('.', 1)[0]}.{last_byte}"


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look until the condition holds; fail with ``what`` when it does not within so many seconds."""
    deadline = Deadline(seconds)
    while not condition():
        if not deadline.remaining:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(min(0.05, deadline.remaining))


def world(rig: Rig) -> dict[str, object]:
    """All that the driver lists, as one comparable value. What may change by itself (bytes allocated, the reason of a
    state) is left out; the image, which tests share, too.
    """
    driver, can = rig.driver, rig.has
    seen: dict[str, object] = {}
    if can(Capability.MACHINES):
        machines = driver.machines.list(rig.deadline)
        seen["machines"] = {each.id: replace(each, reason=None, volumes=dict(each.volumes)) for each in machines}
    if can(Capability.VOLUMES):
        seen["volumes"] = {each.id: each.size_bytes for each in driver.volumes.list(rig.deadline)}
        seen["images"] = set(driver.volumes.list_images(rig.deadline)) - {rig.image.id}
    if can(Capability.NETWORKS):
        seen["networks"] = {each.id: each.subnet_ids for each in driver.networks.list(rig.deadline)}
        seen["ports"] = set(driver.networks.list_ports(rig.deadline))
    if isinstance(driver, api.Snapshots):
        seen["snapshots"] = {each.id: each.size_bytes for each in driver.list_snapshots(rig.deadline)}
    return seen


@contextmanager
def unchanged(rig: Rig) -> Iterator[None]:
    """Hold that what happens inside changes nothing that the driver lists."""
    before = world(rig)
    yield
    assert world(rig) == before


@contextmanager
def refused(rig: Rig, error: type[api.DriverError] = api.Refused) -> Iterator[None]:
    """Hold that what happens inside is answered with that error, gives a reason, and changes nothing."""
    with unchanged(rig):
        with pytest.raises(error) as caught:
            yield
        assert caught.value.reason.strip()


@contextmanager
def unsupported(rig: Rig, capability: Capability) -> Iterator[None]:
    """Hold that what happens inside is refused for lack of that capability, by name, and changes nothing."""
    with unchanged(rig):
        with pytest.raises(api.Unsupported) as caught:
            yield
        assert caught.value.capability is capability
    rig.found.lacks.add(capability)
