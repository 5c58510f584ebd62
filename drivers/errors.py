"""What a driver may answer instead of doing what it was asked, and the deadline by which it has to answer.

Part of the contract in drivers.api, from where everyone imports it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drivers.api import Capability


class DriverError(Exception):
    """The root of the four answers a driver may give instead of doing what it was asked.

    ``reason`` is one English sentence for operators; ``vendor_code`` is the platform's own code, if it gave one.
    """

    def __init__(self, reason: str, *, vendor_code: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.vendor_code = vendor_code


class Transient(DriverError):
    """It may work when asked again: a timeout, a lock held, a connection lost on the way."""


class HostAtFault(DriverError):
    """This host cannot, another could: disk full, out of memory, hypervisor daemon down for good."""


class Refused(DriverError):
    """The request is wrong on every host: a broken image, an address in use, a resource still used."""


class Unsupported(DriverError):
    """The platform has no such feature. ``capability`` names it."""

    def __init__(self, capability: Capability, reason: str) -> None:
        super().__init__(reason)
        self.capability = capability


class Deadline:
    """A moment on the monotonic clock by which a call has to have answered."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self._at - time.monotonic())

    def check(self, doing: str) -> None:
        """Raise :class:`Transient` when no time is left."""
        if not self.remaining:
            raise Transient(f"the deadline passed while {doing}")
