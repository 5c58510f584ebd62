"""A host as a driver meets it: how it is reached, and what it says of itself.

Part of the contract in drivers.api, from where everyone imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from drivers.api import Capability


@dataclass(frozen=True, slots=True)
class HostConfig:
    """How one host is reached. ``endpoint`` is the platform's own address (``qemu:///system``, ``sim://rack-1``,
    ``https://vcenter/sdk``); ``options`` are driver-specific and listed in the driver's README; ``scratch`` is a
    private folder on the worker which the driver may use and which may vanish between calls.
    """

    name: str
    endpoint: str
    scratch: Path
    options: Mapping[str, str] = field(default_factory=dict)
    username: str | None = None
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a host says of itself: physical capacity, before any overcommit. ``restriction`` is one sentence for
    operators on why it does less than its kind can. ``pool`` names the hosts that machines move between as they are
    (:class:`drivers.api.Relocation`); None: this host hands none on.
    """

    hypervisor: str
    version: str
    vcpus: int
    ram_mib: int
    disk_gib: int
    architecture: str
    cpu_model: str | None = None
    accelerator: str | None = None
    restriction: str | None = None
    pool: str | None = None


@runtime_checkable
class Restricted(Protocol):
    """A connection to a host that may do less than its kind can, for reasons of the host's own (a licence) or of
    the way to it (a network).
    """

    @property
    def withheld(self) -> frozenset[Capability]:
        """What the host was found not to do; looked for by ``facts``. Its verbs are refused with HostAtFault, or with
        Unsupported where no host that is reached like this can do it.
        """
