"""``sim``, the simulated data centre: a driver for tests, benchmarks, demonstrations and machines without a hypervisor.

It keeps and enforces what a real host would and runs nothing. README.md is its manual. :data:`DRIVER` is its entry
point, :func:`data_centre` the operator's side door, :func:`driver_type` makes hosts that lack capabilities.
"""

from drivers.sim.connection import driver_type
from drivers.sim.data_centre import DataCentre, data_centre
from drivers.sim.world import World

__all__ = ["DRIVER", "DataCentre", "World", "data_centre", "driver_type"]

DRIVER = driver_type()
