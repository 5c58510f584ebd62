"""The ESXi driver beside its simulator's own rates: reading the whole inventory, making and starting machines by eight
workers, and how soon a change that somebody else makes is seen.

Everything is on this machine, engine and driver on the same processors, and the engine is no host: the figures tell
what the driver adds to what the engine can do, and nothing of how fast VMware is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from pyVmomi import vim

from drivers.api import (
    Deadline,
    DiskSpec,
    Driver,
    MachineChanged,
    MachineSpec,
    Power,
    PowerAction,
    VolumeSpec,
    Watching,
)
from drivers.esxi import DRIVER, reading
from tests.bench.table import Report, median, percentile
from tests.drivers.esxi_host import config_of, content_of, machine_of
from tests.servers.esxsim import EsxSim, build

SECONDS = 300.0
WORKERS = 8
SECTION = "esxi"
MIB = 1 << 20
TIMES = 3


def measure(report: Report, folder: Path, *, quick: bool) -> None:
    """Add the figures. Raises PackageMissingError without the simulator's packages."""
    program = build(folder)
    for machines in (1000,) if quick else (1000, 10_000):
        for ours in (False, True):
            _inventory(report, program, machines, ours=ours)
    _creation(report, program, 32 if quick else 128)
    _watching(report, program, 20 if quick else 100)


def _open(stack: ExitStack, program: Path, machines: int, *, ours: bool = False) -> tuple[EsxSim, Driver]:
    sim = EsxSim.create(program, machines=machines, ours=ours)
    stack.callback(sim.stop)
    driver = DRIVER.connect(config_of(sim), Deadline(SECONDS))
    stack.callback(driver.close)
    return sim, driver


def _inventory(report: Report, program: Path, machines: int, *, ours: bool) -> None:
    """All machines with all that the driver reads of each, beside name and power state alone."""
    with ExitStack() as stack:
        sim, driver = _open(stack, program, machines, ours=ours)
        content = content_of(sim)
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        names = ("name", "runtime.powerState")

        def bare() -> None:
            found = len(reading.related(content, view, "view", vim.VirtualMachine, names))
            if found != machines:
                raise AssertionError(f"the simulator has {found} machines")

        def whole() -> None:
            found = len(driver.machines.list(Deadline(SECONDS)))
            if found != machines * ours:
                raise AssertionError(f"the driver tells {found} machines")

        driver.facts(Deadline(SECONDS))  # the connection is warm
        first = _seconds(whole)
        sim.calls()
        cpu = time.process_time()
        seconds = median([_seconds(whole) for _ in range(TIMES)])
        cpu = (time.process_time() - cpu) / TIMES
        calls = sum(sim.calls().values()) / TIMES
        whose = "all ours, whole" if ours else "all somebody else's"
        report.add(
            SECTION, f"inventory of {machines:,} machines, {whose}", seconds, "s",
            baseline=median([_seconds(bare) for _ in range(TIMES)]), against="name and power state alone, read in bulk",
            note=f"{calls:g} calls, {cpu:.2f} s of our own CPU; the first time {first:.2f} s",
        )  # fmt: skip


def _creation(report: Report, program: Path, count: int) -> None:
    with ExitStack() as stack:
        sim, driver = _open(stack, program, 0)
        made = _rate(count, lambda _: _by_driver(driver))
        own = threading.local()

        def direct(number: int) -> None:
            if not hasattr(own, "content"):
                own.content = content_of(sim)
            _direct(own.content, number)

        report.add(
            SECTION, f"create + power on, {WORKERS} workers", made, "machines/s", baseline=_rate(count, direct),
            against="the simulator's own rate: CreateVM_Task and PowerOnVM_Task, one disk",
            note="the driver makes a volume of its own first, and looks before each write",
        )  # fmt: skip


def _rate(count: int, work: Callable[[int], object]) -> float:
    with ThreadPoolExecutor(WORKERS) as pool:
        began = time.monotonic()
        for done in [pool.submit(work, number) for number in range(count)]:
            done.result()
        return count / (time.monotonic() - began)


def _by_driver(driver: Driver) -> UUID:
    volume, machine = uuid4(), uuid4()
    driver.volumes.ensure(VolumeSpec(volume, MIB), Deadline(SECONDS))
    spec = MachineSpec(machine, "bench", 1, 128, (DiskSpec(volume, "vda"),))
    driver.machines.ensure(spec, Deadline(SECONDS))
    driver.machines.power(machine, PowerAction.ON, Deadline(SECONDS))
    return machine


def _direct(content: Any, number: int) -> None:
    datacenter = content.rootFolder.childEntity[0]
    compute = datacenter.hostFolder.childEntity[0]
    store = compute.host[0].datastore[0].name
    controller = vim.vm.device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
    folder = f"[{store}] direct-{number}"
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=f"{folder}/disk.vmdk", diskMode="persistent", thinProvisioned=True
    )
    disk = vim.vm.device.VirtualDisk(
        key=-1, controllerKey=1000, unitNumber=0, capacityInKB=1024, backing=backing
    )  # fmt: skip
    add: Any = vim.vm.device.VirtualDeviceSpec
    config = vim.vm.ConfigSpec(
        name=f"direct-{number}", guestId="otherLinux64Guest", numCPUs=1, memoryMB=128,
        files=vim.vm.FileInfo(vmPathName=f"{folder}/direct.vmx"),
        deviceChange=[
            add(operation="add", device=controller), add(operation="add", fileOperation="create", device=disk),
        ],
    )  # fmt: skip
    made = _ended(datacenter.vmFolder.CreateVM_Task(config=config, pool=compute.resourcePool, host=compute.host[0]))
    _ended(made.PowerOnVM_Task())


def _ended(task: Any) -> Any:
    while task.info.state not in {"success", "error"}:
        time.sleep(0.005)
    if task.info.state == "error":
        raise AssertionError(task.info.error)
    return task.info.result


def _watching(report: Report, program: Path, count: int) -> None:
    """Power changes by another client, from the end of its task to our call-back."""
    with ExitStack() as stack:
        sim, driver = _open(stack, program, 0)
        if not isinstance(driver, Watching):
            raise TypeError("the ESXi driver pushes changes")
        machine = _by_driver(driver)
        seen: dict[Power, threading.Event] = {Power.RUNNING: threading.Event(), Power.OFF: threading.Event()}

        def heard(change: MachineChanged) -> None:
            if change.machine_id == machine and change.machine is not None and change.machine.power in seen:
                seen[change.machine.power].set()

        watch = driver.watch(heard, Deadline(SECONDS))
        stack.callback(watch.close)
        vm = machine_of(content_of(sim), machine)
        delays = []
        for number in range(count):
            wanted = Power.RUNNING if number % 2 else Power.OFF
            seen[wanted].clear()
            _ended(vm.PowerOnVM_Task() if wanted is Power.RUNNING else vm.PowerOffVM_Task())
            began = time.monotonic()
            if not seen[wanted].wait(SECONDS):
                raise AssertionError("a change was not seen")
            delays.append((time.monotonic() - began) * 1000)
        note = "the engine looks for changes every 250 ms"
        report.add(SECTION, "change seen by the watcher, p50", median(delays), "ms", note=note)
        report.add(SECTION, "change seen by the watcher, p99", percentile(delays, 0.99), "ms", note=note)


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
