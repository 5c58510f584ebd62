"""Everything the KVM driver tells libvirt is valid by libvirt's own schemas, and says what it should."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from uuid import UUID

import pycdlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from drivers.api import (
    Direction,
    DiskSpec,
    Firmware,
    MachineSpec,
    NetworkSpec,
    NicSpec,
    PortSpec,
    Refused,
    RuleSpec,
    Seed,
    SubnetSpec,
    Unsupported,
)
from drivers.kvm import names, seed, xml
from drivers.kvm.options import Options
from drivers.kvm.xml.common import Element, strings
from drivers.kvm.xml.domain import with_changes
from drivers.kvm.xml.network import Lease, digest, digest_in, lease_range_in, leases_in, parking, subnets_in
from drivers.kvm.xml.nwfilter import record_in
from drivers.kvm.xml.segment import Segment, segment_in

SCHEMAS = Path("/usr/share/libvirt/schemas")
MACHINE, VOLUME, PORT, NETWORK, SUBNET = (UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + at) for at in range(5))
MAC = "52:54:00:00:00:01"
BRIDGE_MAC = "52:54:00:00:00:fe"
SPEC = MachineSpec(
    MACHINE,
    "web & <db>",
    2,
    512,
    (DiskSpec(VOLUME, "vda"), DiskSpec(UUID(int=9), "vdb", read_only=True)),
    (NicSpec(PORT, NETWORK, MAC),),
    Seed({"meta-data": b"instance-id: x\n"}),
    marks={"project": "p", "odd": "'\"<&>"},
)
PLAN = xml.DomainPlan(
    SPEC, [xml.DiskSource(each, f"/pool/volume-{each.volume_id}.qcow2") for each in SPEC.disks],
    f"/pool/console-{MACHINE}.log", f"/pool/seed-{MACHINE}.iso", "tcg", Options(),
)  # fmt: skip
SUBNET_4 = SubnetSpec(SUBNET, "10.1.0.0/24", "10.1.0.1", dhcp=True, dns_servers=("9.9.9.9", "10.1.0.53", "fd00::1"))
SUBNET_6 = SubnetSpec(UUID(int=6), "fd00:1::/64", "fd00:1::1", dhcp=False)
QUIET = SubnetSpec(UUID(int=8), "10.1.1.0/24", None, dhcp=False)


def segment(*subnets: SubnetSpec) -> Segment:
    """What a port's filter learns of a network with these subnets, as libvirt hands it back."""
    element = xml.network(NetworkSpec(NETWORK, "net", subnets))
    etree.SubElement(element, "mac", address=BRIDGE_MAC)
    return segment_in(element)


SEGMENT = segment(SUBNET_4, SUBNET_6)


@cache
def schema(name: str) -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(SCHEMAS / f"{name}.rng"))


def check(name: str, element: Element) -> None:
    document = xml.parse(xml.text(element))
    for each in document.iter("all-ipv6", "icmpv6"):
        # libvirt's parser reads a state here and makes ip6tables rules of it (test_kvm_packets sees them work); only
        # its schema forgot the attribute for this family
        if "state" in each.attrib:
            del each.attrib["state"]
    assert schema(name).validate(document), schema(name).error_log


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
@pytest.mark.parametrize("firmware", list(Firmware))
def test_a_machine(accelerator: str, firmware: Firmware) -> None:
    element = xml.domain(replace(PLAN, spec=replace(SPEC, firmware=firmware), accelerator=accelerator))
    check("domain", element)
    assert element.get("type") == {"tcg": "qemu", "kvm": "kvm"}[accelerator]
    assert strings(element, "name/text()|uuid/text()") == [f"sg-{MACHINE.hex}", str(MACHINE)]
    assert strings(element, "devices/disk/target/@dev") == ["vda", "vdb", "sda"]
    assert strings(element, "devices/disk/serial/text()") == [VOLUME.hex[:20], UUID(int=9).hex[:20]]
    assert strings(element, "devices/disk[boot]/target/@dev") == ["vda"]
    assert strings(element, "devices/graphics/listen/@type") == ["none"]
    assert strings(element, "devices/graphics/@port|devices/graphics//@address") == []
    assert strings(element, "features/tcg/tb-cache/text()") == (["32"] if accelerator == "tcg" else [])
    assert len(strings(element, "os/nvram/@template")) == (firmware is Firmware.UEFI)
    assert strings(element, "//*[local-name()='mark' and @key='odd']/text()") == ["'\"<&>"]


def test_a_machine_without_seed_has_no_cd() -> None:
    element = xml.domain(replace(PLAN, seed_path=None))
    check("domain", element)
    assert strings(element, "devices/disk/@device") == ["disk", "disk"]


def test_a_machine_changes_in_size_name_and_marks_only() -> None:
    before = xml.domain(PLAN)
    after = with_changes(before, replace(SPEC, ram_mib=1024, vcpus=4, name="other"))
    assert after is not None
    check("domain", after)
    assert strings(after, "memory/text()|currentMemory/text()|vcpu/text()") == ["1048576", "1048576", "4"]
    assert strings(after, "metadata/*/*[local-name()='name']/text()") == ["other"]
    assert strings(after, "devices//@*") == strings(before, "devices//@*")
    assert with_changes(after, replace(SPEC, ram_mib=1024, vcpus=4, name="other")) is None


def test_storage() -> None:
    check("storagepool", xml.pool("stratograph", "/var/lib/libvirt/images/stratograph"))
    check("storagevol", xml.volume("volume-x.qcow2", 1024))
    check("storagevol", xml.volume("image-x.raw", 1024, "raw"))
    check("storagevol", xml.volume("volume-x.qcow2", 1024, backing=("/pool/image.raw", "raw")))
    check("domainbackup", xml.backup("vdb", ["vda", "sda"], "/pool/snapshot-x.qcow2"))


def test_a_network_with_nat_leases_and_both_families() -> None:
    spec = NetworkSpec(NETWORK, "net", (SUBNET_4, SUBNET_6), mtu=1400)
    leases = [Lease(MAC, "10.1.0.10", "web"), Lease("52:54:00:00:00:02", "10.2.0.10")]
    element = xml.network(spec, leases)
    check("network", element)
    check("network", parking(NETWORK))
    assert strings(element, "forward/@mode|forward/nat/@ipv6|mtu/@size") == ["nat", "yes", "1400"]
    assert strings(element, "forward/nat/port/@*") == ["16384", "32767"]
    assert [str(each) for each in SEGMENT.ranges] == ["10.1.0.0/24", "fd00:1::/64"]
    assert strings(element, "ip/@address") == ["10.1.0.1", "fd00:1::1"]
    assert leases_in(element) == leases[:1], "a lease out of range does not come along"
    assert lease_range_in(element) is not None
    assert subnets_in(element) == {SUBNET, UUID(int=6)}
    assert digest_in(element) == digest(spec) != digest(replace(spec, mtu=1500))
    options = "//*[local-name()='option']/@value"
    assert strings(element, options) == ["dhcp-option=option:dns-server,9.9.9.9,10.1.0.53"]
    assert strings(element, "dns/@enable") == ["no"]


def test_a_network_without_gateway_is_isolated() -> None:
    with_leases = xml.network(NetworkSpec(NETWORK, "net", (replace(SUBNET_4, gateway=None),)))
    check("network", with_leases)
    assert with_leases.find("forward") is None
    assert strings(with_leases, "ip/@address") == ["10.1.0.254"]
    without = xml.network(NetworkSpec(NETWORK, "net", (replace(SUBNET_4, gateway=None, dhcp=False),)))
    check("network", without)
    assert without.find("ip") is None
    check("network", xml.network(NetworkSpec(NETWORK, "net")))


@pytest.mark.parametrize(
    ("subnets", "error"),
    [
        ((replace(SUBNET_4, cidr="10.1.0.1/24"),), Refused),
        ((replace(SUBNET_4, gateway="10.2.0.1"),), Refused),
        ((replace(SUBNET_4, dns_servers=("x\ndhcp-script=/bin/sh",)),), Refused),
        ((SUBNET_4, replace(SUBNET_4, id=UUID(int=7), cidr="10.1.0.128/25", gateway=None, dhcp=False)), Refused),
        ((replace(SUBNET_6, dhcp=True),), Unsupported),
        ((SUBNET_4, replace(SUBNET_4, id=UUID(int=7), cidr="10.3.0.0/24", gateway="10.3.0.1")), Unsupported),
        ((replace(SUBNET_4, gateway=None), SUBNET_6), Unsupported),
        ((replace(SUBNET_4, cidr="10.1.0.0/31", gateway=None),), Refused),
    ],
)
def test_a_network_that_cannot_be_had(subnets: tuple[SubnetSpec, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        xml.network(NetworkSpec(NETWORK, "net", subnets))


RULES = st.builds(
    RuleSpec,
    direction=st.sampled_from(Direction),
    ethertype=st.sampled_from([4, 6]),
    protocol=st.sampled_from([None, "tcp", "udp", "icmp"]),
    port_min=st.none() | st.integers(-1, 70000),
    port_max=st.none() | st.integers(-1, 70000),
    remote=st.sampled_from([None, "0.0.0.0/0", "::/0", "10.0.0.0/8", "fd00::/8", "10.0.0.1/32", "10.0.0.1/8", "x"]),
)


@settings(deadline=None)  # other tests share the machine
@given(rules=st.none() | st.lists(RULES, max_size=4).map(tuple), six=st.booleans())
def test_any_rules_give_a_valid_filter_or_a_refusal(rules: tuple[RuleSpec, ...] | None, six: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    addresses = ("10.1.0.10", "fd00:1::10") if six else ("10.1.0.10",)
    spec = PortSpec(PORT, NETWORK, MAC.upper(), addresses, "web", rules)
    try:
        element = xml.port_filter(spec, SEGMENT)
    except Refused:
        return
    check("nwfilter", element)
    record = record_in(element)
    assert record is not None
    assert (record.network, record.mac, record.addresses) == (NETWORK, MAC, addresses)
    assert (element.find("rule/all") is None) == (rules is None), "with a rule of iptables libvirt lets out all else"
    if rules is not None:
        drops = strings(element, "rule[@action='drop' and @priority='1000']/@direction")
        assert drops == ["out", *(["inout"] * len(addresses))]


def test_the_record_filter_is_empty() -> None:
    check("nwfilter", xml.record_filter())


@pytest.mark.parametrize(
    "rule",
    [
        RuleSpec(Direction.INGRESS, 4, "sctp"),
        RuleSpec(Direction.INGRESS, 5),
        RuleSpec(Direction.INGRESS, 4, "tcp", 90, 80),
        RuleSpec(Direction.INGRESS, 4, "tcp", None, 80),
        RuleSpec(Direction.INGRESS, 4, "tcp", 0, 65536),
        RuleSpec(Direction.INGRESS, 4, "icmp", 256),
        RuleSpec(Direction.INGRESS, 4, None, 80),
        RuleSpec(Direction.INGRESS, 4, "tcp", remote="fd00::/8"),
        RuleSpec(Direction.INGRESS, 4, "tcp", remote="10.0.0.1/8"),
    ],
)
def test_a_rule_without_sense_is_refused(rule: RuleSpec) -> None:
    with pytest.raises(Refused):
        xml.port_filter(PortSpec(PORT, NETWORK, MAC, ("10.1.0.10",), None, (rule,)), SEGMENT)


FORMS = [("tcp", 4), ("udp", 4), ("icmp", 4), (None, 4), ("tcp", 6), ("udp", 6), ("icmp", 6), (None, 6)]


@pytest.mark.parametrize(("protocol", "version"), FORMS)
@pytest.mark.parametrize("remote", ["any", "wider", "own", "narrower", "foreign"])
def test_only_the_network_itself_may_begin(protocol: str | None, version: int, remote: str) -> None:
    own = ["10.1.0.0/24", "10.1.1.0/24"] if version == 4 else ["fd00:1::/64", "fe80::/10"]
    ranges = {
        "any": (None, own),
        "wider": ("10.0.0.0/8", own) if version == 4 else ("fd00::/8", own[:1]),
        "own": (own[0], own[:1]),
        "narrower": ("10.1.1.7/32", ["10.1.1.7/32"]) if version == 4 else ("fe80::7/128", ["fe80::7/128"]),
        "foreign": ("10.2.0.0/16" if version == 4 else "fd00:2::/64", []),
    }
    given, expected = ranges[remote]
    rule = RuleSpec(Direction.INGRESS, version, protocol, 8 if protocol == "icmp" else None, remote=given)
    spec = PortSpec(PORT, NETWORK, MAC, ("10.1.0.10", "fd00:1::10"), None, (rule,))
    element = xml.port_filter(spec, segment(SUBNET_4, QUIET, SUBNET_6))
    for way, priority, end in (("in", 500, "src"), ("out", 600, "dst")):
        found = element.xpath(f"rule[@action='accept' and @direction='{way}' and @priority='{priority}']/*")
        assert isinstance(found, list)
        seen = [f"{each.get(f'{end}ipaddr')}/{each.get(f'{end}ipmask')}" for each in found if isinstance(each, Element)]
        assert sorted(seen) == sorted(expected if way == "in" or protocol == "icmp" else []), way


def test_an_address_that_is_not_translated_stays_on_its_segment() -> None:
    """Else the host would route it, under its own address and past libvirt's rules."""
    spec = PortSpec(PORT, NETWORK, MAC, ("10.1.0.10", "10.1.1.10"), None, ())
    element = xml.port_filter(spec, segment(SUBNET_4, QUIET))
    rules = "rule[@direction='out' and @action='{}']/ip[@srcipaddr='{}']/@{}"
    assert strings(element, rules.format("accept", "10.1.0.10", "dstipaddr")) == []
    assert len(strings(element, rules.format("accept", "10.1.0.10", "srcipaddr"))) == 1
    assert strings(element, rules.format("accept", "10.1.1.10", "dstipaddr")) == [
        "10.1.0.1", "10.1.0.0", "10.1.1.0", "224.0.0.0", "255.255.255.255",
    ]  # fmt: skip
    assert strings(element, rules.format("drop", "10.1.1.10", "dstmacaddr")) == [BRIDGE_MAC, "fe:00:00:00:00:00"]


@settings(deadline=None)  # other tests share the machine
@given(st.uuids())
def test_names_lead_back_to_ids(our_id: UUID) -> None:
    assert names.is_ours(names.of(our_id), our_id)
    assert not names.is_ours(names.of(our_id), UUID(int=our_id.int ^ 1))
    assert names.port_of(names.port_filter(our_id)) == our_id
    assert len(names.bridge(our_id)) <= 15
    assert len(names.serial(our_id)) == 20
    file = names.PoolFile("volume", our_id, "qcow2")
    assert names.pool_file(f"/some/pool/{file}") == file
    mark = names.Making("image", our_id, "0123456789ab")
    assert names.making(str(mark)) == mark
    assert names.pool_file(str(mark)) is None


def test_a_seed_is_a_disc_labelled_cidata() -> None:
    files = {"meta-data": b"instance-id: i\n", "user-data": b"#cloud-config\n", "network-config": b"version: 2\n"}
    disc = pycdlib.PyCdlib()
    image = seed.iso(Seed(files))
    disc.open_fp(BytesIO(image))
    assert image[16 * 2048 + 40 : 16 * 2048 + 46] == b"cidata"
    for name, content in files.items():
        for path in ({"joliet_path": f"/{name}"}, {"rr_path": f"/{name}"}):
            out = BytesIO()
            disc.get_file_from_iso_fp(out, **path)
            assert out.getvalue() == content
    disc.close()


@pytest.mark.parametrize("files", [{"../x": b""}, {"a": b"x" * (1024 * 1024 + 1)}, {"": b""}])
def test_a_seed_that_is_no_seed_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(Refused):
        seed.iso(Seed(files))
