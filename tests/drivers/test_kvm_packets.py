"""Security groups, anti-spoofing, leases and changing networks, seen by booted guests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from drivers.api import Deadline, Direction, NetworkSpec, Power, PowerAction, RuleSpec, SubnetSpec
from drivers.kvm.driver import KvmDriver
from tests.drivers.kvm_host import (
    RULES_WEB,
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

WITHOUT_WEB = tuple(each for each in RULES_WEB if each.protocol != "tcp")


@dataclass
class Two:
    """Two booted guests on one network."""

    host: LibvirtHost
    driver: KvmDriver
    network: NetworkSpec
    one: Guest
    other: Guest

    def rules(self, guest: Guest, rules: tuple[RuleSpec, ...] | None) -> None:
        self.driver.networks.ensure_port(replace(guest.port, rules=rules), Deadline(SECONDS))


@pytest.fixture
def two(pair: Two) -> Two:
    """The two guests with the usual rules, whatever the test before left."""
    for each in (pair.one, pair.other):
        pair.rules(each, RULES_WEB)
    return pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with libvirt_host("packets") as host:
        driver = connect(host, tmp_path_factory.mktemp("scratch"))
        plain = network_spec(1)
        six = SubnetSpec(uuid4(), "fd00:55::/64", None, dhcp=False)  # no router: guests make up no addresses
        network = replace(plain, subnets=(*plain.subnets, six))
        driver.networks.ensure(network, Deadline(SECONDS))
        one, other = (make_guest(host, driver, port_spec(network, at)) for at in (11, 12))
        for each in (one, other):
            assert each.power(PowerAction.ON) is Power.RUNNING
        for each in (one, other):
            each.says("SG: READY")
        yield Two(host, driver, network, one, other)
        driver.close()


def other_reaches_one(two: Two) -> bool:
    return "host=guest-11" in two.other.shell(f"timeout 2 wget -q -O - http://{two.one.address}/")


def test_a_guest_gets_its_lease_with_router_and_name_servers(two: Two) -> None:
    assert f"{two.one.port.mac} 10.55.1.11/24" in two.one.console()
    told = two.one.shell("ip route; cat /etc/resolv.conf").split("rc=")[0]
    # Whether the guest gives its default route a metric depends on which option told it of the router.
    assert [line.replace(" metric 100", "").strip() for line in told.splitlines()] == [
        "default via 10.55.1.1 dev eth0",
        "10.55.1.0/24 dev eth0 scope link  src 10.55.1.11",
        "nameserver 10.55.0.53",
    ]


def test_a_rule_that_is_taken_away_blocks_and_one_that_is_given_allows(two: Two) -> None:
    assert other_reaches_one(two)
    two.rules(two.one, WITHOUT_WEB)
    assert not other_reaches_one(two)
    assert not two.one.reached_from_host()
    assert " 0% packet loss" in two.other.shell(f"ping -c 1 -W 2 {two.one.address}")
    two.rules(two.one, RULES_WEB)
    assert other_reaches_one(two)
    assert two.one.reached_from_host()


def ping(guest: Guest, target: str, *options: str) -> bool:
    """Whether one of two pings from the guest is answered."""
    return "bytes from" in guest.shell(f"ping -c 2 -W 1 {' '.join(options)} {target}")


def test_icmp_of_one_type_is_answered(two: Two) -> None:
    echo = RuleSpec(Direction.INGRESS, 4, "icmp", 8, 0)
    two.rules(two.one, (*WITHOUT_WEB[1:], *RULES_WEB[:1]))
    assert not ping(two.other, two.one.address)
    two.rules(two.one, (*WITHOUT_WEB[1:], *RULES_WEB[:1], echo))
    assert ping(two.other, two.one.address)
    two.rules(two.one, RULES_WEB)


def test_what_may_not_leave_does_not_but_answers_do(two: Two) -> None:
    two.rules(two.one, RULES_WEB[:2])
    assert other_reaches_one(two), "answers belong to what was let in"
    assert not ping(two.one, two.other.address)
    two.rules(two.one, (*RULES_WEB[:2], RuleSpec(Direction.EGRESS, 4, "icmp", remote=f"{two.other.address}/32")))
    assert ping(two.one, two.other.address)
    assert not ping(two.one, "10.55.1.1"), "the rule names one remote address"
    two.rules(two.one, RULES_WEB)
    assert ping(two.one, "10.55.1.1")


def test_a_rule_holds_for_its_remote_range_and_ports_only(two: Two) -> None:
    for remote, reached in ((f"{two.other.address}/32", True), ("10.55.1.0/29", False), ("0.0.0.0/0", True)):
        two.rules(two.one, (*RULES_WEB[1:], RuleSpec(Direction.INGRESS, 4, "tcp", 79, 81, remote)))
        assert other_reaches_one(two) is reached, remote
    two.rules(two.one, (*RULES_WEB[1:], RuleSpec(Direction.INGRESS, 4, "tcp", 81, 90)))
    assert not other_reaches_one(two)
    two.rules(two.one, RULES_WEB)


def test_a_foreign_address_is_blocked_unless_security_is_off(two: Two) -> None:
    two.one.shell("ip addr add 10.55.1.99/24 dev eth0")
    assert not ping(two.one, two.other.address, "-I", "10.55.1.99")
    two.rules(two.one, None)
    assert ping(two.one, two.other.address, "-I", "10.55.1.99")
    two.rules(two.one, RULES_WEB)
    two.other.shell("arp -d 10.55.1.99")
    assert not ping(two.one, two.other.address, "-I", "10.55.1.99")
    two.one.shell("ip addr del 10.55.1.99/24 dev eth0")


def test_a_foreign_mac_is_blocked(two: Two) -> None:
    true = two.one.port.mac
    change = (
        "ip link set eth0 down; ip link set eth0 address {}; ip link set eth0 up; ip route add default via 10.55.1.1"
    )
    script = (
        f"({change.format('52:54:00:00:66:66')}; ping -c 2 -W 1 {two.other.address} >/tmp/spoofed;"
        f"{change.format(true)}; ping -c 2 -W 1 {two.other.address} >/tmp/true; echo done >/tmp/done) >/dev/null 2>&1 &"
    )
    two.one.shell(script)
    wait_for(two.one.reached_from_host, SECONDS, "the guest is back under its own MAC")
    wait_for(lambda: "done" in two.one.shell("cat /tmp/done"), SECONDS, "the guest has tried both")
    assert "bytes from" not in two.one.shell("cat /tmp/spoofed")
    assert "bytes from" in two.one.shell("cat /tmp/true")


def test_ipv6_is_filtered_and_guarded_like_ipv4(two: Two) -> None:
    reach = (RuleSpec(Direction.INGRESS, 6, "icmp"), RuleSpec(Direction.EGRESS, 6))
    ports = {
        each.address: replace(each.port, addresses=(*each.port.addresses, v6(each))) for each in (two.one, two.other)
    }
    for each in (two.one, two.other):
        each.shell(f"ip addr add {v6(each)}/64 dev eth0")

    def allow(guest: Guest, *rules: RuleSpec) -> None:
        wanted = replace(ports[guest.address], rules=(*RULES_WEB, *rules))
        two.driver.networks.ensure_port(wanted, Deadline(SECONDS))

    try:
        assert not ping(two.one, v6(two.other)), "neither port has an address of that family"
        allow(two.one, *reach)
        allow(two.other, *reach)
        wait_for(lambda: ping(two.one, v6(two.other)), SECONDS, "addresses are found to be unique and neighbours found")
        two.one.shell(f"ip addr add {v6(two.one)}99/64 dev eth0")
        assert not ping(two.one, v6(two.other), "-I", f"{v6(two.one)}99"), "a foreign address"
        two.one.shell(f"ip addr del {v6(two.one)}99/64 dev eth0")
        allow(two.other, reach[1])
        assert not ping(two.one, v6(two.other)), "no rule lets it in"
        allow(two.other, *reach)
        assert ping(two.one, v6(two.other))
    finally:
        for each in (two.one, two.other):
            two.rules(each, RULES_WEB)


def v6(guest: Guest) -> str:
    return f"fd00:55::{guest.address.rpartition('.')[2]}"


def test_a_network_changes_under_running_guests(two: Two) -> None:
    second = SubnetSpec(uuid4(), "10.55.2.0/24", None, dhcp=False)
    changed = replace(two.network, subnets=(*two.network.subnets, second))
    assert two.driver.networks.ensure(changed, Deadline(SECONDS)).subnet_ids == {each.id for each in changed.subnets}
    assert two.one.reached_from_host()
    assert other_reaches_one(two)
    two.rules(two.one, WITHOUT_WEB)
    assert not other_reaches_one(two), "the rules are still in place"
    two.rules(two.one, RULES_WEB)
    assert "SG: NIC eth0" in two.one.console()
    lease = "kill -USR2 $(cat /run/dhcp.eth0); kill -USR1 $(cat /run/dhcp.eth0)"
    seen = two.one.console().count("SG: NIC eth0")
    two.one.shell(f"({lease}) >/dev/null 2>&1 &")
    two.one.says("SG: NIC eth0", seen + 1)
    assert two.one.reached_from_host()
