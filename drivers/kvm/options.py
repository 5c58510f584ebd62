"""What an operator may say about a KVM host, read once from ``HostConfig`` and checked.

Everything the driver builds depends on these values and on nothing else of the configuration. An unknown option, an
unknown value or an endpoint that would run a command or skip certificate checks is refused when connecting, not
found out later.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from drivers.api import HostConfig, Refused

_TRANSPORTS = frozenset({"qemu", "qemu+unix", "qemu+tls", "qemu+tcp", "qemu+ssh", "qemu+libssh", "qemu+libssh2"})
_FORBIDDEN_QUERY = frozenset({"command", "no_verify", "netcat", "no_tty", "sshauth", "proxy"})
_CHOICES = {
    "accelerator": ("auto", "kvm", "tcg"),
    "disk_cache": ("none", "writeback", "writethrough", "directsync"),
    "allow_plain_tcp": ("false", "true"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The driver's options with their defaults; the README explains each."""

    accelerator: str = "auto"
    pool: str = "stratograph"
    pool_path: str = "/var/lib/libvirt/images/stratograph"
    disk_cache: str = "none"
    uefi_code: str = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    uefi_vars: str = "/usr/share/OVMF/OVMF_VARS_4M.fd"
    allow_plain_tcp: str = "false"


def read(config: HostConfig) -> Options:
    """The options of this host. Raises Refused on an unknown name or value and on an unsafe endpoint."""
    known = set(Options.__slots__)
    if unknown := sorted(set(config.options) - known):
        raise Refused(f"unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}")
    options = Options(**config.options)
    for name, allowed in _CHOICES.items():
        if (value := getattr(options, name)) not in allowed:
            raise Refused(f"option {name} must be one of {', '.join(allowed)}, not {value!r}")
    for name in ("pool_path", "uefi_code", "uefi_vars"):
        if not getattr(options, name).startswith("/"):
            raise Refused(f"option {name} must be an absolute path on the host")
    if not options.pool or "/" in options.pool:
        raise Refused("option pool must be the name of a storage pool")
    _check_endpoint(config.endpoint, options)
    return options


def _check_endpoint(endpoint: str, options: Options) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme not in _TRANSPORTS or parts.path != "/system":
        raise Refused(f"the endpoint must be like qemu:///system or qemu+tls://host/system, not {endpoint!r}")
    if bad := _FORBIDDEN_QUERY & set(parse_qs(parts.query, keep_blank_values=True)):
        raise Refused(f"the endpoint must not set {', '.join(sorted(bad))}")
    if parts.scheme == "qemu+tcp" and options.allow_plain_tcp != "true":
        raise Refused("qemu+tcp is neither encrypted nor authenticated; use qemu+tls, or set allow_plain_tcp=true")
