"""First-boot data: cloud-init's NoCloud files for a server, as pure text from its row and ports.

Layout: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html. JSON is YAML, so it is written as
JSON: nothing a tenant says can break out of its place.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import ip_interface

from drivers.api import Seed

DEFAULT_USER_DATA = "#cloud-config\n{}\n"


@dataclass(frozen=True, slots=True)
class Interface:
    """A NIC as the guest is to set it up. ``addresses`` are with prefix length; DHCP gives the first one where
    ``dhcp`` is set.
    """

    mac: str
    dhcp: bool
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    dns_servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """What a server tells its guest."""

    instance_id: str
    hostname: str
    public_key: str | None
    user_data: str | None
    properties: dict[str, str]
    interfaces: tuple[Interface, ...]


def hostname(name: str) -> str:
    """A server's name as a host name: lower-case letters, digits and hyphens, at most 63."""
    plain = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63].strip("-")
    return plain or "server"


def build(boot: FirstBoot) -> Seed:
    """The three files."""
    meta: dict[str, object] = {"instance-id": boot.instance_id, "local-hostname": boot.hostname}
    if boot.public_key is not None:
        meta["public-keys"] = [boot.public_key]
    if boot.properties:
        meta["meta"] = boot.properties
    network = {
        "version": 2,
        "ethernets": {f"nic{index}": _ethernet(index, nic) for index, nic in enumerate(boot.interfaces)},
    }
    return Seed(
        {
            "meta-data": (json.dumps(meta, indent=1) + "\n").encode(),
            "user-data": (boot.user_data or DEFAULT_USER_DATA).encode(),
            "network-config": (json.dumps(network, indent=1) + "\n").encode(),
        }
    )


def _ethernet(index: int, nic: Interface) -> dict[str, object]:
    told: dict[str, object] = {"match": {"macaddress": nic.mac}, "set-name": f"eth{index}"}
    v4 = [each for each in nic.addresses if ip_interface(each).version == 4]  # noqa: PLR2004 - the IP version
    v6 = [each for each in nic.addresses if each not in v4]
    static = [*([] if nic.dhcp else v4), *v6]
    if nic.dhcp and v4:
        told["dhcp4"] = True
    if static:
        told["addresses"] = static
        gateways = [g for g in nic.gateways if not nic.dhcp or ":" in g]
        if index == 0 and gateways:
            told["routes"] = [{"to": "default", "via": gateway} for gateway in gateways]
        if nic.dns_servers:
            told["nameservers"] = {"addresses": list(nic.dns_servers)}
    return told
