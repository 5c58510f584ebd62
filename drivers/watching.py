"""Changes of machines, pushed by a host instead of being polled.

Part of the contract in drivers.api, from where everyone imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from uuid import UUID

if TYPE_CHECKING:
    from drivers.api import Deadline, Machine


@dataclass(frozen=True, slots=True)
class MachineChanged:
    """Something happened to a machine. ``machine`` is its state just after, None when it is gone."""

    machine_id: UUID
    machine: Machine | None


class Watch(Protocol):
    """An open stream of changes."""

    @property
    def alive(self) -> bool:
        """False once the stream ended by itself (connection lost); then list and watch anew."""

    def close(self) -> None:
        """End the stream; no call-back comes after this returned."""


@runtime_checkable
class Watching(Protocol):
    """Pushes state changes instead of being polled."""

    def watch(self, on_change: Callable[[MachineChanged], None], deadline: Deadline) -> Watch:
        """Call ``on_change`` from a thread of the driver for each change, until the watch is closed."""
