"""What is heard of a guest from outside: the one question that "it runs" does not answer.

Part of the contract in drivers.api, from where everyone imports it. A sign is only what the guest itself has done: its
agent answered just now, or it asked for an address. No sign proves nothing, for a guest may have neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from uuid import UUID

if TYPE_CHECKING:
    from drivers.api import Deadline


@dataclass(frozen=True, slots=True)
class GuestSigns:
    """Whether the agent in the guest answers (QEMU's guest agent, VMware's tools), and by lower-case MAC until when the
    host's own DHCP has leased it an address, in seconds since 1970: one that is later than before was asked for since.
    """

    agent: bool = False
    leases: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class GuestListening(Protocol):
    """Listens for guests."""

    def guest_signs(self, machine_id: UUID, deadline: Deadline) -> GuestSigns:
        """What is heard of the machine's guest now; no agent answers while it is off. Raises Refused when there is no
        such machine.
        """
