"""libvirt's errors as the four answers of the driver contract: one table by code, one by text where the code is mute.

libvirt reports much under two catch-all codes (internal error, system error), so text and errno are asked first. What
no table knows is the host's fault: another host may do it, and nothing is retried blindly on this one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import libvirt

from drivers.api import Capability, DriverError, HostAtFault, Refused, Transient, Unsupported

_Answer = type[Transient] | type[HostAtFault] | type[Refused]

#: Codes with one meaning wherever they come from. VIR_ERR_ is left off.
CODES: Mapping[str, _Answer] = {
    # Ask again: connections, locks, and states that changed under the call.
    "NO_CONNECT": Transient,
    "INVALID_CONN": Transient,
    "RPC": Transient,
    "SYSTEM_ERROR": Transient,
    "OPERATION_TIMEOUT": Transient,
    "OPERATION_ABORTED": Transient,
    "OPERATION_INVALID": Transient,
    "OPERATION_FAILED": Transient,
    "RESOURCE_BUSY": Transient,
    "AGENT_UNRESPONSIVE": Transient,
    "AGENT_UNSYNCED": Transient,
    "DEVICE_MISSING": Transient,
    "MULTIPLE_DOMAINS": Transient,
    "NONE": Transient,  # its words are lost: the thread let go of a libvirt object before it asked for them
    # Another host may do it.
    "INTERNAL_ERROR": HostAtFault,
    "NO_MEMORY": HostAtFault,
    "AUTH_FAILED": HostAtFault,
    "AUTH_CANCELLED": HostAtFault,
    "AUTH_UNAVAILABLE": HostAtFault,
    "ACCESS_DENIED": HostAtFault,
    "GNUTLS_ERROR": HostAtFault,
    "NO_STORAGE_POOL": HostAtFault,
    "BUILD_FIREWALL": HostAtFault,
    "NO_KERNEL": HostAtFault,
    "CPU_INCOMPATIBLE": HostAtFault,
    # Wrong everywhere.
    "INVALID_ARG": Refused,
    "XML_ERROR": Refused,
    "XML_DETAIL": Refused,
    "XML_INVALID_SCHEMA": Refused,
    "DOM_EXIST": Refused,
    "NETWORK_EXIST": Refused,
    "STORAGE_VOL_EXIST": Refused,
    "STORAGE_POOL_BUILT": Refused,
    "INVALID_MAC": Refused,
    "NO_DOMAIN": Refused,
    "NO_NETWORK": Refused,
    "NO_STORAGE_VOL": Refused,
    "NO_NWFILTER": Refused,
    "INVALID_NWFILTER": Refused,
}

#: Codes that say the platform has no such feature.
UNSUPPORTED = frozenset(
    {"NO_SUPPORT", "CONFIG_UNSUPPORTED", "ARGUMENT_UNSUPPORTED", "OPERATION_UNSUPPORTED", "INVALID_STREAM"}
)

#: Parts of messages, asked before the code because the code beside them is a catch-all.
TEXTS: tuple[tuple[str, _Answer], ...] = (
    ("No space left on device", HostAtFault),
    ("Disk quota exceeded", HostAtFault),
    ("Cannot allocate memory", HostAtFault),
    ("Read-only file system", HostAtFault),
    ("Input/output error", HostAtFault),
    ("Network is already in use by interface", Refused),
    ("already exists", Refused),
    ("No more available PCI", Refused),
    ('Failed to get "', Transient),  # QEMU's image locks: someone has the file open at this moment
    ("asynchronous jobs running", Transient),
    ("is still being allocated", Transient),
    ("is still in use", Transient),
    ("keepalive timeout", Transient),
    ("client socket is closed", Transient),
    ("Cannot recv data", Transient),
    ("Cannot write data", Transient),
    ("End of file while reading data", Transient),
    ("cannot acquire state change lock", Transient),
)

_ERRNOS: Mapping[int, _Answer] = {
    errno.ENOSPC: HostAtFault,
    errno.EDQUOT: HostAtFault,
    errno.EROFS: HostAtFault,
    errno.EIO: HostAtFault,
    errno.ENOMEM: HostAtFault,
    errno.EACCES: HostAtFault,
    errno.ENOENT: HostAtFault,
}

_LEVELS = frozenset({"VIR_ERR_NONE", "VIR_ERR_WARNING", "VIR_ERR_ERROR"})

_NAMES: Mapping[int, str] = {
    value: name.removeprefix("VIR_ERR_")
    for name, value in sorted(vars(libvirt).items(), reverse=True)
    if name.startswith("VIR_ERR_") and isinstance(value, int) and name not in _LEVELS
}


def code_name(error: libvirt.libvirtError) -> str:
    """The name libvirt gives the error without its prefix (``NO_DOMAIN``), or the number when it is a new one."""
    code = error.get_error_code()
    return _NAMES.get(code, str(code)) if code is not None else "NONE"


def translate(error: libvirt.libvirtError, doing: str, capability: Capability = Capability.MACHINES) -> DriverError:
    """The contract's answer for a libvirt error met while ``doing`` something."""
    name = code_name(error)
    message = error.get_error_message() or str(error)
    reason = f"{doing}: {message}"
    if name in UNSUPPORTED:
        return Unsupported(capability, reason)
    for text, answer in TEXTS:
        if text in message:
            return answer(reason, vendor_code=name)
    if name == "SYSTEM_ERROR" and (number := error.get_int1()) in _ERRNOS:
        return _ERRNOS[number](reason, vendor_code=name)
    return CODES.get(name, HostAtFault)(reason, vendor_code=name)


@contextmanager
def told(doing: str, capability: Capability = Capability.MACHINES) -> Iterator[None]:
    """Raises every libvirt error of its body as the contract's error."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error, doing, capability) from error


_Thing = TypeVar("_Thing")


def found(look_up: Callable[[], _Thing], *absent: str) -> _Thing | None:
    """What ``look_up`` answers, None when libvirt says with one of these codes that there is none."""
    try:
        return look_up()
    except libvirt.libvirtError as error:
        if code_name(error) in absent:
            return None
        raise
