"""Examines what the KVM driver needs of this machine: QEMU, libvirt, dnsmasq, packet filters, bridges, acceleration.

libvirt is asked through `virsh`, since its Python binding is imported only inside its driver. Nothing is changed: the
one bridge that is made lives and dies in a network namespace of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.doctor.acceleration import FORBIDDEN_KVM, NO_KVM, QEMU, Verdict
from gateway.doctor.program import located, run
from gateway.doctor.report import Finding, Status, broken, missing, ok

CAP_NET_ADMIN = 12
PACKAGES = {
    "qemu-img": "qemu-utils",
    QEMU: "qemu-system-x86",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "iptables": "iptables",
    "ebtables": "iptables",
}


def install(package: str) -> str:
    """How to get a package."""
    if sys.platform == "darwin":
        return "the KVM driver needs Linux; here the sim driver works"
    return f"`make setup`, or apt-get install {package}"


def program(name: str) -> Finding:
    """A program that must be there and tell its version."""
    ran = run([name, "--version"])
    if located(name) is None:
        return missing(name, "not installed", install(PACKAGES[name]))
    if ran.code != 0:
        why = "did not answer" if ran.hung else ran.first_line
        return broken(name, f"{located(name)}: {why}", f"apt-get install --reinstall {PACKAGES[name]}")
    return ok(name, ran.version)


def conversion() -> Finding:
    """virt-v2v, which only moves that ask for it need, with the programs that Debian does not install with it."""
    packages = {"virt-v2v": "virt-v2v", "nbdkit": "nbdkit", "nbdcopy": "libnbd-bin", "qemu-nbd": "qemu-utils"}
    absent = [name for name in packages if located(name) is None]
    if "virt-v2v" in absent:
        return ok("virt-v2v", "not installed; moves that ask for a conversion of the guest are refused")
    if absent:
        remedy = " ".join(("apt-get install", *(packages[name] for name in absent)))
        return broken("virt-v2v", f"it needs what is not installed: {', '.join(absent)}", remedy)
    ran = run(["virt-v2v", "--version"])
    if ran.code != 0:
        why = "did not answer" if ran.hung else ran.first_line
        return broken("virt-v2v", why, "apt-get install --reinstall virt-v2v")
    return ok("virt-v2v", ran.version)


def libvirt() -> Finding:
    """The daemon behind the system socket."""
    if located("virsh") is None:
        return missing("libvirt", "not installed", install("libvirt-daemon-system libvirt-clients"))
    ran = run(["virsh", "--connect", "qemu:///system", "version"])
    if ran.code == 0:
        lines = dict(line.split(":", 1) for line in ran.output.splitlines() if ":" in line)
        return ok("libvirt", f"{lines.get('Using library', '').strip()}, {lines.get('Running hypervisor', '').strip()}")
    remedy = "`make setup` starts it; with systemd: systemctl start libvirtd"
    if "ermission denied" in ran.output or "uthentication" in ran.output:
        remedy = "add this user to the group libvirt (usermod -a -G libvirt USER) and log in again"
    return broken("libvirt", "libvirtd does not answer in time" if ran.hung else ran.first_line, remedy)


def has_net_admin() -> bool:
    """Whether this process may change the host's network."""
    status = Path("/proc/self/status")
    if not status.exists():
        return False
    effective = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> CAP_NET_ADMIN & 1)


def filters() -> Finding:
    """Whether nftables rules can be read, and so set, in this kernel."""
    if not has_net_admin():
        return ok("packet filter", "not examined: this user may not; libvirtd sets the rules")
    ran = run(["nft", "list", "tables"])
    if ran.code == 0:
        return ok("packet filter", f"nftables works, {len(ran.output.splitlines())} tables")
    return broken("packet filter", ran.first_line or "nft did not answer", "a kernel with nf_tables (CONFIG_NF_TABLES)")


def bridges(libvirt_status: Status) -> Finding:
    """Whether bridges can be made: one is, in a namespace that goes away with the command."""
    if not has_net_admin():
        if libvirt_status is Status.OK:
            return ok("bridges", "libvirtd makes them")
        return missing("bridges", "no CAP_NET_ADMIN, and no libvirtd to do it", "run as root, or start libvirtd")
    ran = run(["unshare", "--net", "ip", "link", "add", "sgprobe", "type", "bridge"])
    if ran.code == 0:
        return ok("bridges", "this kernel makes them")
    return broken(
        "bridges", ran.first_line or "ip and unshare did not answer", "a kernel with CONFIG_BRIDGE, and iproute2"
    )


def acceleration(verdict: Verdict) -> Finding:
    """Whether guests run on the processor itself. Emulation works everywhere, some ten times slower."""
    if verdict.accelerator == "KVM":
        return ok("acceleration", f"KVM works: micro-guest in {verdict.kvm_seconds:.1f} s")
    if verdict.accelerator is None:
        return missing("acceleration", verdict.reason, install("qemu-system-x86"))
    remedy = "guests run emulated (TCG), which is slower; enable virtualisation in the firmware or the outer hypervisor"
    if verdict.reason == FORBIDDEN_KVM:
        remedy = (
            "add this user to the group kvm (usermod -a -G kvm USER) and log in again; until then guests run emulated"
        )
    if verdict.reason == NO_KVM:
        return missing("acceleration", verdict.reason, remedy)
    return broken("acceleration", verdict.reason, remedy)
