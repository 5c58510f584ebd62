"""Nothing outside a network opens a connection into it, seen by booted guests whose groups let everything in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from drivers.api import Deadline, Direction, NetworkSpec, PortSpec, Power, PowerAction, RuleSpec, SubnetSpec
from drivers.kvm.driver import KvmDriver
from tests.drivers.kvm_host import (
    SECONDS,
    Guest,
    connect,
    libvirt_host,
    make_guest,
    network_spec,
    port_spec,
    wait_for,
)
from tests.servers.libvirt_host import LibvirtHost

EVERYTHING = tuple(RuleSpec(way, version) for way in Direction for version in (4, 6))
BY_PROTOCOL = tuple(
    RuleSpec(way, version, protocol, remote=remote)
    for way in Direction
    for version, remote in ((4, "0.0.0.0/0"), (6, "::/0"))
    for protocol in ("tcp", "udp", "icmp")
)
TYPED = (*BY_PROTOCOL, RuleSpec(Direction.INGRESS, 4, "icmp", 8, 0), RuleSpec(Direction.INGRESS, 6, "icmp", 128, 0))
OUTSIDE = {4: "198.51.100.2", 6: "fd00:99::2"}


@dataclass
class Three:
    """Two guests on one network and a stranger on another network of the host."""

    host: LibvirtHost
    driver: KvmDriver
    one: Guest
    neighbour: Guest
    stranger: Guest

    def rules(self, guest: Guest, rules: tuple[RuleSpec, ...] | None) -> None:
        self.driver.networks.ensure_port(replace(guest.port, rules=rules), Deadline(SECONDS))


@pytest.fixture
def three(trio: Three) -> Three:
    """The guests with everything allowed, whatever the test before left."""
    for each in (trio.one, trio.neighbour, trio.stranger):
        trio.rules(each, EVERYTHING)
    return trio


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with libvirt_host("isolation") as host:
        driver = connect(host, tmp_path_factory.mktemp("scratch"))
        mine, theirs = make_network(driver, 5), make_network(driver, 6)
        places = ((mine, 11), (mine, 12), (theirs, 11))
        guests = [make_guest(host, driver, place_of(network, at)) for network, at in places]
        for each in guests:
            assert each.power(PowerAction.ON) is Power.RUNNING
        for each in guests:
            each.says("SG: READY")
            six = each.port.addresses[1]
            each.shell(
                "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra; ip -6 addr flush dev eth0 scope global;"
                f"ip addr add {six}/64 dev eth0; ip -6 route replace default via {gateway(six)}"
            )
        make_outside(host)
        yield Three(host, driver, *guests)
        driver.close()


def make_network(driver: KvmDriver, number: int) -> NetworkSpec:
    plain = network_spec(number)
    six = SubnetSpec(uuid4(), f"fd00:{number}::/64", f"fd00:{number}::1", dhcp=False)
    network = replace(plain, subnets=(*plain.subnets, six))
    driver.networks.ensure(network, Deadline(SECONDS))
    return network


def place_of(network: NetworkSpec, last: int) -> PortSpec:
    port = port_spec(network, last, EVERYTHING)
    prefix = network.subnets[1].cidr.removesuffix("/64")
    return replace(port, addresses=(*port.addresses, f"{prefix}{last}"))


def gateway(address: str) -> str:
    return f"{address.rpartition(':')[0]}:1"


def make_outside(host: LibvirtHost) -> None:
    """A machine beyond the host which routes the guests' networks to it, with a web server."""
    script = f"""set -e
mkdir -p /run/libvirt/www; echo outside >/run/libvirt/www/index.html
unshare --net sh -c 'ip link set lo up; echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo $$ >/run/libvirt/out.pid
  exec busybox httpd -f -p 80 -h /run/libvirt/www' >/dev/null 2>&1 &
until [ -s /run/libvirt/out.pid ] && [ -e /proc/$(cat /run/libvirt/out.pid)/root ]; do sleep 0.05; done
pid=$(cat /run/libvirt/out.pid)
ip link add up0 type veth peer name in0 netns $pid
ip addr add 198.51.100.1/24 dev up0; ip addr add fd00:99::1/64 dev up0 nodad; ip link set up0 up
nsenter -t $pid -n sh -c 'ip addr add {OUTSIDE[4]}/24 dev in0; ip addr add {OUTSIDE[6]}/64 dev in0 nodad
  ip link set in0 up; ip route add 10.55.0.0/16 via 198.51.100.1; ip -6 route add fd00::/16 via fd00:99::1'
"""
    host.run(("sh", "-c", script))


def from_outside(host: LibvirtHost, script: str) -> str:
    return host.run(("sh", "-c", f"nsenter -t $(cat /run/libvirt/out.pid) -n sh -c '{script}'"), check=False)


def address(guest: Guest, version: int) -> str:
    return guest.port.addresses[0 if version == 4 else 1]


def url(target: str) -> str:
    return f"http://[{target}]/" if ":" in target else f"http://{target}/"


def pings(guest: Guest, target: str) -> bool:
    return "bytes from" in guest.shell(f"ping -c 2 -W 1 {target}")


def opens(guest: Guest, target: str) -> bool:
    return "rc=0" in guest.shell(f"timeout 3 wget -q -O - {url(target)}")


def datagrams(guest: Guest, version: int) -> int:
    """How many datagrams came to a guest for a port on which nobody listens."""
    if version == 4:
        return int(guest.shell("grep ^Udp: /proc/net/snmp | tail -n 1").split()[2])
    return int(guest.shell("grep Udp6NoPorts /proc/net/snmp6").split()[1])


def delivers(guest: Guest, target: Guest, version: int, *options: str) -> bool:
    """Whether datagrams that want no answer arrive."""
    before = datagrams(target, version)
    trace = "traceroute" if version == 4 else "traceroute6"
    guest.shell(f"{trace} -n -q 2 -w 1 -f 9 -m 9 -p 4000 {' '.join(options)} {address(target, version)}")
    return datagrams(target, version) > before


@pytest.mark.parametrize("rules", [EVERYTHING, BY_PROTOCOL, TYPED], ids=["any", "protocols", "typed"])
@pytest.mark.parametrize("version", [4, 6])
def test_another_network_is_out_of_reach(three: Three, version: int, rules: tuple[RuleSpec, ...]) -> None:
    for each in (three.one, three.neighbour):
        three.rules(each, rules)
    target = address(three.one, version)
    wait_for(lambda: pings(three.neighbour, target), SECONDS, "neighbours are found")
    assert opens(three.neighbour, target)
    assert delivers(three.neighbour, three.one, version)
    assert not pings(three.stranger, target)
    assert not opens(three.stranger, target)
    assert not delivers(three.stranger, three.one, version)


@pytest.mark.parametrize("version", [4, 6])
def test_the_outside_is_reached_and_does_not_reach(three: Three, version: int) -> None:
    wait_for(lambda: pings(three.one, OUTSIDE[version]), SECONDS, "answers come back")
    assert "outside" in three.one.shell(f"timeout 3 wget -q -O - {url(OUTSIDE[version])}")
    target = address(three.one, version)
    assert "bytes from" not in from_outside(three.host, f"busybox ping -c 2 -W 1 {target}")
    assert from_outside(three.host, f"curl -g -s -m 2 {url(target)}") == ""


@pytest.mark.parametrize("version", [4, 6])
def test_the_host_and_its_guests_reach_each_other(three: Three, version: int) -> None:
    target = address(three.one, version)
    assert "bytes from" in three.host.run(("busybox", "ping", "-c", "2", "-W", "2", target), check=False)
    assert "host=" in three.host.run(("curl", "-g", "-s", "-m", "5", url(target)), check=False)
    assert pings(three.one, f"{target.rpartition('.')[0]}.1" if version == 4 else gateway(target))


@pytest.mark.parametrize("version", [4, 6])
def test_ports_without_security_are_out_of_reach_too(three: Three, version: int) -> None:
    """But for single ICMP messages, which cannot be told from the host's own at layer 2."""
    target = address(three.one, version)
    three.rules(three.one, None)
    assert opens(three.neighbour, target)
    assert delivers(three.neighbour, three.one, version)
    assert opens(three.one, OUTSIDE[version])
    assert not opens(three.stranger, target)
    assert not delivers(three.stranger, three.one, version)
    three.rules(three.one, EVERYTHING)
    three.rules(three.stranger, None)
    assert opens(three.stranger, OUTSIDE[version])
    assert not pings(three.stranger, target)
    assert not opens(three.stranger, target)
    assert not delivers(three.stranger, three.one, version)


@pytest.mark.parametrize("version", [4, 6])
def test_a_forged_source_does_not_help(three: Three, version: int) -> None:
    """A port that lost its security is the dangerous one: libvirt still accepts what it sends."""
    three.rules(three.stranger, None)
    forged = "10.55.7.7" if version == 4 else "fd00:7::7"
    three.stranger.shell(f"ip addr add {forged}/{32 if version == 4 else 128} dev eth0")
    assert not delivers(three.stranger, three.one, version, f"-s {forged}")
    three.stranger.shell(f"ip addr del {forged}/{32 if version == 4 else 128} dev eth0")
