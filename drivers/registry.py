"""Finds drivers by the entry-point group ``stratograph.drivers``; nobody names a concrete driver."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from drivers.api import DriverType

GROUP = "stratograph.drivers"


@cache
def all_types() -> dict[str, DriverType]:
    """Every installed driver by kind (``KVM``, ``ESXI``, ``SIM`` ...), sorted by kind."""
    found = [point.load() for point in entry_points(group=GROUP)]
    for each in found:
        if not isinstance(each, DriverType):
            raise TypeError(f"an entry point of {GROUP} is not a DriverType: {each!r}")
    return {each.kind: each for each in sorted(found, key=lambda driver: driver.kind)}


def get(kind: str) -> DriverType:
    """The driver of that kind. Raises KeyError when none is installed."""
    return all_types()[kind]
