"""Booting under QEMU: from serverCreate to the guest's first line of userland on its serial port, beside a bare
virDomainCreateXML of the same machine, with a fresh disk on the same base image, in turns on the same libvirt host.

The first server on a host also brings the image there and is told apart.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import libvirt
from lxml import etree
from sqlmodel import select

from gateway.compute.flavor import Flavor
from gateway.compute.host import Host, HostStatus, Hypervisor
from gateway.image.formats import ImageFormat
from gateway.image.image import Image
from gateway.kernel import ids
from tests.bench import process
from tests.bench.client import PASSWORD_OF_BENCH, USER_OF_BENCH, Caller, body, sign_in
from tests.bench.jobs import CREATE
from tests.bench.scene import Ground, active_image, one
from tests.bench.table import Report, median
from tests.guest.image import guest_image
from tests.servers.daemon import ServerError, free_port
from tests.servers.libvirt_host import LibvirtHost, missing

MARK = b"SG: BOOT"
SECONDS = 180.0
BUDGET_SECONDS = 60.0
DELETE = "mutation($input: ServerDeleteInput!) { serverDelete(input: $input) { userErrors { message } } }"


@dataclass(slots=True)
class Rig:
    """A gateway and a libvirt host it drives. ``pool`` is the host's folder of disks, seen from here."""

    ground: Ground
    host: LibvirtHost
    caller: Callable[[], Caller]
    connection: libvirt.virConnect
    pool: Path
    wish: bytes

    def by_gateway(self) -> tuple[float, str]:
        """Seconds from asking for a server to its first line, and its id."""
        began = time.monotonic()
        payload = json.loads(self._post(self.wish))["data"]["serverCreate"]
        if payload["userErrors"]:
            raise ServerError(str(payload["userErrors"]))
        server: str = payload["server"]["id"]
        return await_line(self.pool, str(ids.decode(server)[1])) - began, server

    def bare(self, like: UUID) -> float:
        """Seconds from virDomainCreateXML to the first line of a machine that is like a server's, on a disk of its own.
        It is ended afterwards.
        """
        own = str(uuid4())
        definition = self._definition(like, own)
        began = time.monotonic()
        domain = self.connection.createXML(definition)
        try:
            return await_line(self.pool, own) - began
        finally:
            domain.destroy()

    def remove(self, server: str) -> None:
        """Delete a server and wait until its machine is gone."""
        found = json.loads(self._post(body(DELETE, input={"id": server})))["data"]["serverDelete"]
        if found["userErrors"]:
            raise ServerError(str(found["userErrors"]))
        end = time.monotonic() + 60
        while any(each.UUIDString() == str(ids.decode(server)[1]) for each in self.connection.listAllDomains()):
            if time.monotonic() > end:
                raise ServerError("the server was not deleted")
            time.sleep(0.05)

    def _post(self, given: bytes) -> bytes:
        """Ask over a connection of its own: the gateway closes one that was silent while a guest booted."""
        caller = self.caller()
        try:
            return caller.post(given)
        finally:
            caller.close()

    def _definition(self, like: UUID, own: str) -> str:
        tree: Any = etree.fromstring(
            self.connection.lookupByUUIDString(str(like)).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        )
        for name, text in (("name", f"bare-{own}"), ("uuid", own)):
            found = tree.find(name)
            found.text = text
        for disk in tree.iterfind("devices/disk[@device='disk']"):
            source = disk.find("source")
            source.set("file", self._fresh(source.get("file"), own))
        for log in tree.iterfind("devices/serial/log"):
            log.set("file", str(Path(log.get("file")).with_name(f"bare-{own}.log")))
        return etree.tostring(tree, encoding="unicode")

    def _fresh(self, disk: str, own: str) -> str:
        """A new disk beside that one, on the same base and of the same size, made by the host's own qemu-img."""
        told = json.loads(self.host.run(("qemu-img", "info", "-U", "-f", "qcow2", "--output=json", disk)))
        path = str(Path(disk).with_name(f"bare-{own}.qcow2"))
        base = ("-b", told["full-backing-filename"], "-F", told["backing-filename-format"])
        self.host.run(("qemu-img", "create", "-q", "-f", "qcow2", *base, path, str(told["virtual-size"])))
        self.host.run(("chown", "libvirt-qemu:kvm", path), check=False)
        return path


def await_line(pool: Path, name: str) -> float:
    """The moment when a console log with that text in its name has the line."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for path in pool.glob(f"*{name}*log*"):
            if MARK in path.read_bytes():
                return time.monotonic()
        time.sleep(0.01)
    raise ServerError(f"the guest {name} did not reach userland within {SECONDS:.0f} s")


def measure(report: Report, folder: Path, *, quick: bool) -> None:
    """Add the figures; without the means to run a libvirt host, say so in their place."""
    reason = missing()
    if reason is not None:
        report.add("boot under QEMU", "serverCreate to userland", None, "s", note=f"not measured: {reason}")
        return
    own = folder / "boot"
    own.mkdir()
    with ExitStack() as stack:
        rig = _rig(stack, own)
        cold, server = rig.by_gateway()
        like = ids.decode(server)[1]
        ours: list[float] = []
        theirs: list[float] = []
        kept = server
        end = time.monotonic() + BUDGET_SECONDS
        for _ in range(1 if quick else 3):
            if ours and time.monotonic() > end:
                break  # a machine this busy gets fewer rounds
            took, other = rig.by_gateway()
            ours.append(took)
            rig.remove(other)
            theirs.append(rig.bare(like))
        rig.remove(kept)
    section = "boot under QEMU (TCG)"
    report.add(
        section, "first server on a host, image brought there", cold, "s", baseline=median(theirs), against="bare"
    )
    report.add(
        section, "serverCreate to first userland line", median(ours), "s", baseline=median(theirs),
        against="bare virDomainCreateXML", target="at most 1.2 x + 1 s",
        note=f"of {len(ours)}; beyond 1.2 x: {median(ours) - 1.2 * median(theirs):+.2f} s",
    )  # fmt: skip


def _rig(stack: ExitStack, own: Path) -> Rig:
    host = stack.enter_context(LibvirtHost("bench"))
    ground = Ground.lay(own)
    stack.callback(ground.db.close)
    guest = guest_image()
    told = json.loads(subprocess.check_output(("qemu-img", "info", "-f", "qcow2", "--output=json", str(guest))))
    image = active_image(
        ground.db, ground.settings, ground.tenant, guest.read_bytes(), ImageFormat.QCOW2, size=told["virtual-size"]
    )
    row = Host(
        name="bench", hypervisor=Hypervisor.KVM, endpoint=host.uri, options={"accelerator": "tcg"}, vcpu_ratio=16.0,
        status=HostStatus.UNKNOWN,
    )  # fmt: skip
    key = one(ground.db, row)
    port = free_port()
    gateway = process.serve(process.settings(ground.settings, port, drivers="kvm"), own / "serve.log")
    stack.callback(gateway.stop)
    address = f"127.0.0.1:{port}"
    token = sign_in(address, USER_OF_BENCH, PASSWORD_OF_BENCH)
    _await_online(ground, key)
    connection = libvirt.open(host.uri)
    stack.callback(connection.close)
    wish = body(
        CREATE,
        input={"name": "bench", "flavorId": ground.id(Flavor, ground.flavor), "imageId": ground.id(Image, image)},
    )
    pool = host.folder / "lib" / "images" / "stratograph"
    return Rig(ground, host, lambda: Caller(address, token), connection, pool, wish)


def _await_online(ground: Ground, key: int) -> None:
    end = time.monotonic() + 60
    while True:
        with ground.db.read() as session:
            found = session.exec(select(Host).where(Host.id == key)).one()
        if found.status is HostStatus.ONLINE:
            return
        if time.monotonic() > end:
            raise ServerError(f"the host is {found.status}: {found.status_reason}")
        time.sleep(0.05)
