"""The whole examination, in the order in which a newcomer would want to read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.doctor import host, hypervisor, services
from gateway.doctor.acceleration import QEMU, verdict
from gateway.doctor.report import Finding, Report


def examine(
    state_dir: Path,
    *,
    listen: str = "127.0.0.1:8080",
    database_url: str | None = None,
    broker_url: str | None = None,
    drivers: Mapping[str, str | None] | None = None,
) -> Report:
    """Examine this machine; at most some 30 s the first time, well under a second later.

    `drivers` maps each driver's kind to None, or to what it says is missing (`DriverType.missing()`).
    """
    findings: list[Finding] = [host.python(), host.sqlite(), host.disk(state_dir), host.ram(), host.clock()]
    findings.append(host.address(listen))
    if database_url is not None and not database_url.startswith("sqlite"):
        findings.append(services.database(database_url))
    if broker_url is not None:
        findings.append(services.broker(broker_url))
    findings += [host.driver(kind, lack) for kind, lack in sorted((drivers or {}).items())]

    findings += [hypervisor.program(QEMU), hypervisor.program("qemu-img")]
    found = verdict(state_dir)
    findings.append(hypervisor.acceleration(found))
    libvirt = hypervisor.libvirt()
    findings.append(libvirt)
    findings += [hypervisor.program(name) for name in ("dnsmasq", "nft", "iptables", "ebtables")]
    findings.append(hypervisor.conversion())
    findings += [hypervisor.filters(), hypervisor.bridges(libvirt.status)]
    return Report(tuple(findings), found.accelerator)
