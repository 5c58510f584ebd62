"""The one test class that every driver must pass, in this tree or out of it.

Subclass it in a test file and give it one fixture, ``rig`` (class scope), which yields a :class:`Rig`: a connected
driver, its :class:`~drivers.api.DriverType`, a small image and how long things may take on that platform::

    class TestMine(DriverContract):
        @pytest.fixture(scope="class")
        @classmethod
        def rig(cls, tmp_path_factory):
            driver = DRIVER.connect(config, Deadline(10))
            yield Rig(driver, DRIVER, image, connect=lambda: DRIVER.connect(config, Deadline(10)))
            driver.close()

It holds a driver to the text of ``drivers/api.py``: asking twice equals asking once, a refusal changes nothing,
``list`` is exactly ours, a passed deadline is answered, eight threads make one object, and every capability is tested
both ways (declared: it works; not declared: :class:`~drivers.api.Unsupported` and nothing changed). Objects that are
costly to make are shared between its tests. It does not test what a guest does beyond its serial port and the power
button, nor packets on a wire: such tests are the driver's own.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("drivers.contracts")

from drivers.contracts.adoption import AdoptionContract  # noqa: E402 - assertions are rewritten only in later imports
from drivers.contracts.console import ConsoleContract  # noqa: E402 - as above
from drivers.contracts.driver import DriverWideContract  # noqa: E402 - as above
from drivers.contracts.guest import GuestContract  # noqa: E402 - as above
from drivers.contracts.machinery import MachineryContract  # noqa: E402 - as above
from drivers.contracts.machines import MachineContract  # noqa: E402 - as above
from drivers.contracts.networks import NetworkContract  # noqa: E402 - as above
from drivers.contracts.rig import Elsewhere, Rig  # noqa: E402 - as above
from drivers.contracts.transport import TransportContract  # noqa: E402 - as above
from drivers.contracts.volumes import VolumeContract  # noqa: E402 - as above

__all__ = ["DriverContract", "DriverWideContract", "Elsewhere", "Rig"]


class DriverContract(
    DriverWideContract,
    MachineContract,
    MachineryContract,
    VolumeContract,
    TransportContract,
    NetworkContract,
    AdoptionContract,
    ConsoleContract,
    GuestContract,
):
    """All that ``drivers/api.py`` promises. Needs a class-scoped fixture ``rig`` that yields a :class:`Rig`."""
