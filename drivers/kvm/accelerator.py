"""Whether QEMU runs guests on the processor (kvm) or translates them (tcg).

An operator may say so; ``auto`` asks libvirt what the host offers. That a host has ``/dev/kvm`` does not prove that
guests run well on it, which is why the option exists.
"""

from __future__ import annotations

from typing import Any

from drivers.api import HostAtFault
from drivers.kvm import xml
from drivers.kvm.link import Link
from drivers.kvm.xml.common import strings


def choose(link: Link, connection: Any) -> str:
    """The accelerator, ``kvm`` or ``tcg``. Raises HostAtFault when the wish is kvm and the host has none."""
    wish = link.options.accelerator
    if wish == "tcg":
        return "tcg"
    if link.offers_kvm is None:  # asked once a connection: libvirt may take seconds to tell
        link.offers_kvm = "kvm" in strings(
            xml.parse(connection.getCapabilities()), "guest/arch[@name='x86_64']/domain/@type"
        )
    if link.offers_kvm:
        return "kvm"
    if wish == "kvm":
        raise HostAtFault("this host does not offer KVM")
    return "tcg"
