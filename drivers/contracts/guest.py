"""What ``drivers/guest.py`` promises, as tests, as far as they hold for any guest: most have no agent."""

from __future__ import annotations

from uuid import uuid4

from drivers import api
from drivers.api import Capability, GuestSigns, PowerAction
from drivers.contracts.rig import Rig, refused, unchanged


class GuestContract:
    """Signs of life."""

    def test_what_is_heard_of_a_guest(self, rig: Rig) -> None:
        driver = rig.driver
        if not isinstance(driver, api.GuestListening):
            rig.lacking(Capability.GUEST_SIGNS)
            return
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        with refused(rig):
            driver.guest_signs(uuid4(), rig.deadline)
        with rig.volume() as volume, rig.machine(volume) as machine, unchanged(rig):
            assert driver.guest_signs(machine.id, rig.deadline) == GuestSigns()
            rig.power(machine.id, PowerAction.ON)
            assert driver.guest_signs(machine.id, rig.deadline) == GuestSigns()  # there is nothing on its disk
            rig.power(machine.id, PowerAction.OFF)
        with refused(rig, api.Transient):
            driver.guest_signs(uuid4(), api.Deadline(0))
        rig.works(Capability.GUEST_SIGNS)
