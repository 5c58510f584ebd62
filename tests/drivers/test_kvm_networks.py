"""Networks and leases on a real host, without guests: ranges in use, half-made changes, names, isolation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from drivers.api import Deadline, NetworkSpec, Refused
from drivers.kvm.driver import KvmDriver
from tests.drivers.kvm_host import SECONDS, connect, libvirt_host, network_spec, port_spec, wait_for
from tests.servers.libvirt_host import LibvirtHost


@dataclass
class Place:
    host: LibvirtHost
    driver: KvmDriver

    def ensure(self, spec: NetworkSpec) -> NetworkSpec:
        self.driver.networks.ensure(spec, Deadline(SECONDS))
        return spec

    def leases(self, spec: NetworkSpec) -> list[str]:
        """What dnsmasq was told, sorted."""
        return sorted(self.host.run(("cat", f"/var/lib/libvirt/dnsmasq/sg-{spec.id.hex}.hostsfile")).split())

    def dump(self, spec: NetworkSpec, *options: str) -> str:
        return self.host.run(("virsh", "net-dumpxml", *options, f"sg-{spec.id.hex}"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with libvirt_host("networks") as host:
        driver = connect(host, tmp_path_factory.mktemp("scratch"))
        host.run(("ip", "link", "add", "uplink", "type", "bridge"))
        host.run(("ip", "addr", "add", "10.55.40.7/24", "dev", "uplink"))
        host.run(("ip", "addr", "add", "10.55.42.7/24", "dev", "uplink"))
        host.run(("ip", "link", "set", "uplink", "up"))
        yield Place(host, driver)
        driver.close()


def test_a_range_of_the_host_is_refused_and_nothing_stays(place: Place) -> None:
    spec = network_spec(40)
    with pytest.raises(Refused, match="in use by interface"):
        place.ensure(spec)
    assert spec.id not in [each.id for each in place.driver.networks.list(Deadline(SECONDS))]
    assert spec.id.hex not in place.host.run(("virsh", "-q", "net-list", "--all", "--name"))


def test_a_change_the_host_cannot_take_leaves_the_old_network(place: Place) -> None:
    spec = place.ensure(network_spec(41))
    port = port_spec(spec, 5)
    place.driver.networks.ensure_port(port, Deadline(SECONDS))
    with pytest.raises(Refused):
        place.ensure(replace(network_spec(42), id=spec.id))
    assert place.leases(spec) == [f"{port.mac},10.55.41.5,guest-5"]
    assert place.driver.networks.inspect(spec.id, Deadline(SECONDS)) == place.driver.networks.ensure(
        spec, Deadline(SECONDS)
    )
    assert "10.55.41.1" in place.host.run(("ip", "-4", "-o", "addr"))


def test_a_change_that_died_half_way_is_finished(place: Place) -> None:
    spec = place.ensure(network_spec(43))
    xml = place.dump(spec, "--inactive")
    unfinished = re.sub(r"<portgroup name='spec-[^>]*>\s*</portgroup>", "", xml)
    assert unfinished != xml
    (place.host.folder / "lib" / "net.xml").write_text(unfinished)
    place.host.run(("virsh", "net-define", "/var/lib/libvirt/net.xml"))
    place.host.run(("virsh", "net-destroy", f"sg-{spec.id.hex}"))
    place.ensure(spec)
    assert "portgroup name='spec-" in place.dump(spec, "--inactive")
    assert "10.55.43.1" in place.host.run(("ip", "-4", "-o", "addr"))


def test_a_stopped_network_is_started(place: Place) -> None:
    spec = place.ensure(network_spec(44))
    place.host.run(("virsh", "net-destroy", f"sg-{spec.id.hex}"))
    place.ensure(spec)
    assert "10.55.44.1" in place.host.run(("ip", "-4", "-o", "addr"))


def test_leases_follow_their_ports(place: Place) -> None:
    networks = place.driver.networks
    spec = place.ensure(network_spec(45))
    one, twin = port_spec(spec, 5), replace(port_spec(spec, 6), hostname="guest-5")
    odd = replace(port_spec(spec, 7), hostname="no_name; really")
    for each in (one, twin, odd):
        networks.ensure_port(each, Deadline(SECONDS))
    expected = [f"{one.mac},10.55.45.5,guest-5", f"{twin.mac},10.55.45.6", f"{odd.mac},10.55.45.7"]
    assert place.leases(spec) == sorted(expected)
    with pytest.raises(Refused, match="own address"):
        networks.ensure_port(port_spec(spec, 1), Deadline(SECONDS))
    networks.ensure_port(replace(one, addresses=("10.55.45.50",), mac="52:54:00:aa:aa:aa"), Deadline(SECONDS))
    networks.remove_port(spec.id, twin.id, Deadline(SECONDS))
    networks.remove_port(spec.id, odd.id, Deadline(SECONDS))
    assert place.leases(spec) == ["52:54:00:aa:aa:aa,10.55.45.50,guest-5"]
    config = place.host.run(("cat", f"/var/lib/libvirt/dnsmasq/sg-{spec.id.hex}.conf")).splitlines()
    assert "port=0" in config, "dnsmasq serves no names"
    assert "dhcp-option=option:dns-server,10.55.0.53" in config
    assert [each for each in config if each.startswith("dhcp-range=")] == ["dhcp-range=10.55.45.1,static"]


def test_a_network_without_gateway_gives_leases_and_no_route(place: Place) -> None:
    spec = place.ensure(network_spec(46, gateway=None))
    networks = place.driver.networks
    port = port_spec(spec, 5)
    networks.ensure_port(port, Deadline(SECONDS))
    config = place.host.run(("cat", f"/var/lib/libvirt/dnsmasq/sg-{spec.id.hex}.conf")).splitlines()
    assert "dhcp-option=3" in config, "an empty router option"
    assert "10.55.46.254" in place.host.run(("ip", "-4", "-o", "addr"))
    with pytest.raises(Refused, match="own address"):
        networks.ensure_port(port_spec(spec, 254), Deadline(SECONDS))


def test_a_network_of_others_is_left_alone(place: Place) -> None:
    (place.host.folder / "lib" / "theirs.xml").write_text(
        f"<network><name>theirs</name><uuid>{uuid4()}</uuid><bridge name='theirs0'/>"
        "<ip address='10.55.47.1' prefix='24'/></network>"
    )
    place.host.run(("virsh", "net-define", "/var/lib/libvirt/theirs.xml"))
    with pytest.raises(Refused, match="theirs"):
        place.ensure(network_spec(47))
    uuid = place.host.run(("virsh", "net-uuid", "theirs")).strip()
    assert uuid not in [str(each.id) for each in place.driver.networks.list(Deadline(SECONDS))]
    assert "theirs" in place.host.run(("virsh", "-q", "net-list", "--all", "--name"))


def test_ipv6_with_a_gateway_is_routed_by_the_host(place: Place) -> None:
    spec = network_spec(48)
    v6 = replace(spec.subnets[0], id=uuid4(), cidr="fd00:48::/64", gateway="fd00:48::1", dhcp=False, dns_servers=())
    place.ensure(replace(spec, subnets=(*spec.subnets, v6)))
    wait_for(lambda: "fd00:48::1/64" in place.host.run(("ip", "-6", "-o", "addr")), SECONDS, "the gateway is there")
