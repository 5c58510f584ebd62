"""Finds drivers by the entry-point group ``stratograph.drivers``; nobody names a concrete driver.

A driver that cannot be imported hides no other: :func:`failures` tells what it said.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from drivers.api import DriverType

GROUP = "stratograph.drivers"


@cache
def _found() -> tuple[dict[str, DriverType], dict[str, str]]:
    types: dict[str, DriverType] = {}
    failures: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        try:
            loaded = point.load()
        except ImportError as error:
            failures[point.name] = str(error)
            continue
        if not isinstance(loaded, DriverType):
            raise TypeError(f"an entry point of {GROUP} is not a DriverType: {point.name}")
        types[loaded.kind] = loaded
    return types, failures


def all_types() -> dict[str, DriverType]:
    """Every installed driver by kind (``KVM``, ``ESXI``, ``SIM`` ...), sorted by kind."""
    return dict(sorted(_found()[0].items()))


def failures() -> dict[str, str]:
    """Why an entry point could not be imported, by its name."""
    return dict(_found()[1])


def get(kind: str) -> DriverType:
    """The driver of that kind. Raises KeyError when none is installed."""
    return all_types()[kind]
