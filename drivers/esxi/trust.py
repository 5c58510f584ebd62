"""Whom an ESXi connection trusts: how the host is addressed and how its certificate is checked, from its HostConfig.

There is no way to switch the check off. A host with a certificate of its own making is pinned: that very certificate
becomes the only trust anchor, on each connection (pyVmomi's own thumbprint check holds once, and on loopback never).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from drivers.api import HostConfig, Refused

KNOWN = frozenset(
    {"ca_file", "certificate", "datastore", "disks", "dvswitch", "folder"}
    | {"host", "resource_pool", "seed", "shared", "vlan_pool", "vswitch"}
)
HTTPS = 443


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the host listens, who we are there and whom we trust. ``inventory_host`` picks one host of a vCenter."""

    host: str
    port: int
    path: str
    username: str
    secret: str = field(repr=False)
    trust: ssl.SSLContext
    inventory_host: str | None


def endpoint(config: HostConfig) -> Endpoint:
    """Read ``https://HOST[:PORT]/sdk`` and the options. Raises Refused when something is wrong or missing."""
    if unknown := sorted(set(config.options) - KNOWN):
        raise Refused(f"the esxi driver has no option {unknown[0]!r}; it has {', '.join(sorted(KNOWN))}")
    try:
        parts = urlsplit(config.endpoint)
        port = parts.port or HTTPS
    except ValueError as error:
        raise Refused(f"the endpoint is no address: {error}") from error
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise Refused(f"a vSphere host is addressed as https://HOST[:PORT]/sdk, not {config.endpoint!r}")
    if not config.username or not config.secret:
        raise Refused("a vSphere host needs a user name and a password")
    path = parts.path.rstrip("/") or "/sdk"
    return Endpoint(
        parts.hostname, port, path, config.username, config.secret, _trust(config), config.options.get("host")
    )


def _trust(config: HostConfig) -> ssl.SSLContext:
    pinned, ca_file = config.options.get("certificate"), config.options.get("ca_file")
    if pinned and ca_file:
        raise Refused("give either 'certificate' (the host's own, pinned) or 'ca_file', not both")
    try:
        if not pinned:
            return ssl.create_default_context(cafile=ca_file)  # without a file: the system's authorities
        if pinned.count("-----BEGIN CERTIFICATE-----") != 1:
            raise Refused("the option 'certificate' is one certificate in PEM")
        context = ssl.create_default_context(cadata=pinned)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise Refused(f"the certificate cannot be read: {error}") from error
    # The one certificate is known by its key, so the name in it does not matter, and it need not be an authority.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context
