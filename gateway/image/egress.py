"""Which addresses the cloud may connect to on a user's behalf, and a connection that goes nowhere else.

Invariant: the address that is dialled is the very one that was checked. A name is resolved once per connection, every
address it answers is judged, and the socket is opened to one of those; nobody resolves again behind the check, so a
name that changes its answer (DNS rebinding) gains nothing. A name with even one forbidden address is refused whole.
Addresses that carry an IPv4 address inside (mapped, NAT64, 6to4) are judged by that one. All waiting ends at one
deadline, also against a peer that sends a byte at a time. TLS, Host and redirects are ``fetch``'s concern.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import httpcore2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_ADDRESSES: Final = 8
_CONNECT_SECONDS: Final = 10.0


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


#: Beyond what ``is_global`` knows in every Python this runs on: relays, benchmarks, documentation, site-local, ranges
#: in which tunnels hide an IPv4 address we do not unpack, and a cloud's own metadata on an address that looks public.
_DENIED: Final = _networks(
    "0.0.0.0/8", "100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
    "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10",
    "fd00:ec2::/32",
)  # fmt: skip
_PRIVATE: Final = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Public addresses are allowed; ``allowed_private`` adds RFC 1918 and ULA; ``allowed_networks`` anything else."""

    allowed_private: bool = False
    allowed_networks: tuple[Network, ...] = ()

    def permits(self, address: Address) -> bool:
        """Whether a connection to ``address`` may be opened."""
        if _within(address, self.allowed_networks):
            return True
        inner = _inner(address)
        if inner is not None:
            return self.permits(inner)
        if _within(address, _DENIED):
            return False
        if self.allowed_private and _within(address, _PRIVATE):
            return True
        special = address.is_multicast or address.is_reserved or address.is_loopback or address.is_link_local
        return address.is_global and not special


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)  # an address of the other version is in none


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to this IPv6 address end up at, if it carries one."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


class AddressForbidden(Exception):  # noqa: N818 - reads as a statement where it is caught
    """The host is, or may be, inside. The address is not told: it would describe our network to a stranger."""


class NameUnresolved(Exception):  # noqa: N818 - reads as a statement where it is caught
    """The host has no address, or none was found in time."""


class Deadline:
    """A moment on the monotonic clock by which everything has to be over."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._at - time.monotonic())

    def cap(self, timeout: float | None) -> float:
        """``timeout`` seconds, or what is left if that is less; never zero, which sockets take for "do not wait"."""
        left = self.remaining
        return max(0.001, left if timeout is None else min(timeout, left))


class CheckedBackend(httpcore2.NetworkBackend):
    """httpcore's way to the network, for connections that ``policy`` permits and ``deadline`` ends."""

    def __init__(self, policy: AddressPolicy, deadline: Deadline) -> None:
        self._policy = policy
        self._deadline = deadline
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address of ``host`` that answers, if all of them are permitted.

        Raises:
            AddressForbidden, NameUnresolved, httpcore2.ConnectError, httpcore2.ConnectTimeout.
        """
        addresses = _resolve(host, port, self._deadline.cap(_CONNECT_SECONDS))
        if not all(self._policy.permits(address) for address in addresses):
            raise AddressForbidden(f"{host} is not a public address")
        failure: Exception = httpcore2.ConnectTimeout("the deadline has passed")
        for address in addresses[:_MAX_ADDRESSES]:
            if not self._deadline.remaining:
                break
            seconds = self._deadline.cap(_CONNECT_SECONDS if timeout is None else timeout)
            try:
                stream = self._sockets.connect_tcp(str(address), port, seconds, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _BoundedStream(stream, self._deadline)
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None
    ) -> httpcore2.NetworkStream:
        """Never: no URL leads to a local socket."""
        del timeout, socket_options
        raise AddressForbidden(f"{path} is a local socket")


class _BoundedStream(httpcore2.NetworkStream):
    """A stream on which no single wait outlives the deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._deadline.remaining:
            raise httpcore2.ReadTimeout("the deadline has passed")
        return self._stream.read(max_bytes, self._deadline.cap(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not self._deadline.remaining:
            raise httpcore2.WriteTimeout("the deadline has passed")
        self._stream.write(buffer, self._deadline.cap(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.cap(timeout))
        return _BoundedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _resolve(host: str, port: int, seconds: float) -> list[Address]:
    """The host's addresses in the system's order. The lookup runs beside us: the resolver knows no deadline."""
    answers: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            # A scope (fe80::1%eth0) is kept: such an address is link-local and has to be recognised as one.
            answers.put(list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found)))
        except (OSError, ValueError) as error:  # ValueError: a name with an empty or overlong label
            answers.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=look_up, name="image-fetch-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise NameUnresolved(f"{host} was not resolved in time") from None
    if isinstance(answer, OSError) or not answer:
        raise NameUnresolved(f"{host} has no address")
    return answer
