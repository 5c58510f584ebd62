"""A host as a driver meets it: how it is reached, and what it says of itself.

Part of the contract in drivers.api, from where everyone imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


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
    """What a host says of itself: physical capacity, before any overcommit."""

    hypervisor: str
    version: str
    vcpus: int
    ram_mib: int
    disk_gib: int
    architecture: str
    cpu_model: str | None = None
    accelerator: str | None = None
