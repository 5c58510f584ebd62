"""Which tests stay in one worker, and which begin first: a pytest plugin, at work under ``--dist loadscope``.

A cloud, a simulator or three booted guests that a whole file shares would be started by each worker that has a test of
that file; so such a file (or folder) is TOGETHER: one unit, given to one worker. Every other test is a unit of its own.
The dear units begin first, in the order written here, then the tests that are LONG by themselves: what is begun last
ought to be short, or the other cores wait for it. Guests that boot (all processor) stand between files that wait.
No test may rely on any of it: they pass in any order and in any worker. tests/architecture/test_schedule.py holds the
two lists to what the tests ask for.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

TOGETHER = (
    "tests/end_to_end/test_kvm.py",
    "tests/dashboard/",
    "tests/drivers/test_kvm_life.py",
    "tests/drivers/test_esxi_contract.py",
    "tests/drivers/test_kvm_contract.py",
    "tests/clients/",
    "tests/drivers/test_kvm_isolation.py",
    "tests/client/",
    "tests/drivers/test_kvm_packets.py",
    "tests/planner/test_differential.py",
    "tests/drivers/test_esxi_faults.py",
    "tests/adversarial/test_http.py",
    "tests/migration/test_side_by_side.py",
    "tests/golden/test_policy.py",
    "tests/end_to_end/test_demo.py",
    "tests/drivers/test_esxi_cluster.py",
    "tests/migration/test_conformance.py",
    "tests/planner/test_cases.py",
    "tests/migration/test_out_of_vmware.py",
    "tests/migration/test_adopt_kvm.py",
    "tests/drivers/test_sim_contract.py",
    "tests/drivers/test_esxi_disks.py",
    "tests/drivers/test_esxi_transport.py",
    "tests/drivers/test_esxi_waiting.py",
    "tests/drivers/test_esxi_inventory.py",
    "tests/drivers/test_esxi_sizes.py",
    "tests/drivers/test_esxi_samples.py",
    "tests/drivers/test_esxi_life.py",
    "tests/drivers/test_esxi_first_boot.py",
    "tests/drivers/test_esxi_console.py",
    "tests/drivers/test_esxi_cloud.py",
    "tests/drivers/test_esxi.py",
    "tests/drivers/test_kvm_networks.py",
    "tests/drivers/test_kvm_console.py",
    "tests/drivers/test_kvm_adoption.py",
    "tests/drivers/test_kvm_files.py",
    "tests/planner/test_mixed.py",
    "tests/planner/test_planned.py",
    "tests/planner/test_rendered.py",
    "tests/planner/test_readers.py",
    "tests/setup/test_wheel.py",
    "tests/architecture/test_tenants.py",
    "tests/architecture/test_docs.py",
    "tests/sagas/test_dead_at_work.py",
    "tests/sagas/test_patience.py",
    "tests/image/test_inspection.py",
    "tests/transport/test_bodies.py",
    "tests/transport/test_limits.py",
)
"""Files, and folders with a slash at the end, whose tests share what is dear: the dearest first."""

LONG = (
    "tests/end_to_end/",
    "tests/guest/",
    "tests/servers/",
    "tests/setup/",
    "tests/adversarial/",
    "tests/simulation/",
    "tests/jobs/",
    "tests/migration/",
    "tests/drivers/",
    "tests/compute/",
)
"""Files and folders with tests of which one alone takes many seconds."""

_PLACES = (*TOGETHER, *LONG)


def unit(nodeid: str) -> str:
    """The unit which that test belongs to: what a worker is given at once."""
    return next((each for each in TOGETHER if nodeid.startswith(each)), nodeid)


def rank(nodeid: str) -> int:
    """The place of that test's file in the order of beginning."""
    return next((at for at, each in enumerate(_PLACES) if nodeid.startswith(each)), len(_PLACES))


class Schedule(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Gives units out in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Note it, and forget units that are done: all that a worker ever had would be counted for each test."""
        super().mark_test_complete(node, item_index, duration)
        assigned = self.assigned_work[node]
        done = unit(self.registered_collections[node][item_index])
        if all(assigned[done].values()):
            del assigned[done]

    def remove_node(self, node: WorkerController) -> str | None:
        """Give what a worker left to others, but for the test at which it died: that one would end them all."""
        units = self.assigned_work.pop(node)
        left = {
            name: rest
            for name, tests in units.items()
            if (rest := {each: False for each, done in tests.items() if not done})
        }
        if not left:
            return None
        first = next(iter(left))
        died_at: str = next(iter(left[first]))
        del left[first][died_at]
        self.workqueue: OrderedDict[str, dict[str, bool]] = OrderedDict(
            {name: tests for name, tests in left.items() if tests} | dict(self.workqueue)
        )
        for each in self.assigned_work:
            self._reschedule(each)
        return died_at


@pytest.hookimpl(trylast=True)  # behind the shuffling; within a file its order stays
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: rank(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Schedule | None:
    """Use this schedule where scopes are asked for."""
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False  # the collection is in order
    return Schedule(config, log)
